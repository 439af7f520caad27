"""alpaca_eval with the harness's client for its calls, and with files that are here for the hub's.

Written against alpaca_eval 0.6.6; tests/judge/kinds/test_packages.py tells when another is
installed. The package reads an annotator's configuration and prompt as it ships them, draws the
order of the outputs, makes the requests and parses the replies. Only its calls are not its own: it
makes an OpenAI client for each of them in turn, and `Asking.ask` takes all of a run's requests at
once. It has no parameter for that, nor for the place of its files; so the two modules that would
ask a network are executed once more as copies of ours (`_copy`), and the package's own stay as they
are.

Imported where a judge runs, for the package brings pandas and scikit-learn along.
"""

import contextlib
import functools
import importlib.util
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

from harness.judge.kinds.alpaca_eval.annotators import (
    EMPTY,
    UNCUT,
    AnnotatorConfig,
    AnnotatorOptions,
    Ask,
    Choice,
    Choices,
    as_chat,
    choices_of,
    sent_options,
)
from harness.judge.kinds.alpaca_eval.chat import NO_PROMPT, broken_prompts
from harness.judge.pairwise import Annotation
from harness.llm.body import Body
from harness.llm.faults import RequestRefused
from harness.llm.replay import ReplayMiss
from harness.llm.reply import REFUSED, Kind, Reply

_NO_DOTENV = "PYTHON_DOTENV_DISABLED"
"""Of python-dotenv, which the package calls as it is imported."""


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Keep what importing the package does to the process from reaching further: it loads the nearest
    file .env into the environment, brings scikit-learn, which sets OpenMP's variables there, imports
    what setuptools is about to give up, which says so in every log, and turns the root logger to INFO,
    a line for every request."""
    before, root = dict(os.environ), logging.getLogger()
    level = root.level
    os.environ[_NO_DOTENV] = "1"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
            yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
        root.setLevel(level)


with _contained():
    import pandas as pd  # type: ignore[import-untyped]
    from alpaca_eval import utils
    from alpaca_eval.annotators import PairwiseAnnotator
    from alpaca_eval.annotators.pairwise_evaluator import SinglePairwiseAnnotator
    from alpaca_eval.constants import EVALUATORS_CONFIG_DIR
    from alpaca_eval.decoders.openai import _get_price_per_token, _requires_chatml
    from alpaca_eval.main import evaluate as evaluate
    from alpaca_eval.metrics import get_winrate as get_winrate

CONFIGURATIONS = Path(EVALUATORS_CONFIG_DIR)
"""The folder of the annotators' configurations."""

TOP_P, TEMPERATURE = 1.0, 0.7
"""What the package sends where an annotator's configuration gives none."""
NOT_SENT = {
    "is_chat",
    "model",
    "sleep_time",
    "client_config_path",
    "client_kwargs",
    "n_retries",
    "openai_organization_ids",
    "openai_api_keys",
    "openai_api_base",
}
"""AnnotatorOptions of the package's own client."""


@dataclass(frozen=True)
class Asking:
    """How the annotators of a run ask."""

    model: str
    """What is asked, for the price."""
    ask: Ask
    replicate: int
    """A number above 0 goes into the requests as their `seed`."""
    choices: Choices
    """Is filled in."""


class Annotator(PairwiseAnnotator):  # type: ignore[misc]
    def __init__(self, asking: Asking, **more: Any) -> None:
        self._asking = asking
        super().__init__(**more)

    @property
    def SingleAnnotator(self) -> Callable[..., Any]:
        return functools.partial(_Single, self._asking)

    def _get_other_output_keys_to_keep(self, *args: Any) -> list[str]:
        # A set's order, which is another one in each process.
        return sorted(super()._get_other_output_keys_to_keep(*args))


class _Single(SinglePairwiseAnnotator):  # type: ignore[misc]
    """One annotator of a pool."""

    def __init__(self, asking: Asking, **config: Any) -> None:
        self._asking = asking
        template = utils.read_or_return(config["prompt_template"], relative_to=config["base_dir"])
        config["completions_kwargs"] = _options(cast("AnnotatorConfig", config), template, asking)
        config["fn_completions"] = self._complete
        super().__init__(**config)

    @property
    def _is_whole(self) -> bool:
        """Whether the parser is given the whole choice, not its text."""
        return bool(self.completion_key == "completions_all")

    def _make_prompts(self, *args: Any, **more: Any) -> Any:
        prompts, table = super()._make_prompts(*args, **more)
        self._instructions = list(table["instruction"])
        return [as_chat(prompt) for prompt in prompts], table

    def _complete(
        self, prompts: Sequence[str], **options: Unpack[AnnotatorOptions]
    ) -> dict[str, list[Any]]:
        kind: Kind = "chat" if _is_chat(options) else "completion"
        template = as_chat(self.prompt_template)
        broken = broken_prompts(prompts, template) if kind == "chat" else set()
        unmade = {i for i in broken if not _can_be_chat(prompts[i])}
        prompts = [NO_PROMPT if i in unmade else prompt for i, prompt in enumerate(prompts)]
        bodies = _bodies(prompts, options)
        replies = self._ask(bodies, broken, unmade, kind)
        answers = [
            [*choices_of(reply, kind, self._is_whole), *[EMPTY] * _width(body)][: _width(body)]
            for body, reply in zip(bodies, replies, strict=True)
        ]
        each = [
            (choice, reply)
            for answer, reply in zip(answers, replies, strict=True)
            for choice in answer
        ]
        for index, instruction in enumerate(self._instructions):
            self._asking.choices[instruction] = each[index // self.batch_size]
        in_turn = iter(answers)
        return _completions(prompts, options, lambda batch, **more: next(in_turn))

    def _ask(
        self, bodies: Sequence[Body], broken: set[int], unmade: set[int], kind: Kind
    ) -> list[Reply]:
        """One reply for each; as of a declined prompt for what cannot be sent (`unmade`), and for
        a broken one that the server does not accept."""

        def ask(requests: Sequence[Body]) -> list[Reply]:
            return self._asking.ask(requests, kind, lambda reply: self._read_reply(reply, kind))

        sound = [i for i in range(len(bodies)) if i not in broken]
        replies = dict(zip(sound, ask([bodies[i] for i in sound]), strict=True))
        for i in sorted(broken):
            replies[i] = Reply("", REFUSED, "", {}, UNCUT, simulated=False, reused=False)
            # Each by itself, for a call that fails for good stops those beside it. A replay
            # finds that it failed.
            with contextlib.suppress(RequestRefused, ReplayMiss):
                if i not in unmade:
                    [replies[i]] = ask([bodies[i]])
        return [replies[i] for i in range(len(bodies))]

    def _read_reply(self, reply: Reply, kind: Kind) -> list[list[float]] | None:
        """The readings of a reply's choices, None unless every one can be read."""
        choices = choices_of(reply, kind, self._is_whole)
        readings = [r for r in map(self._read, choices) if r is not None]
        return readings if readings and len(readings) == len(choices) else None

    def _read(self, choice: Choice) -> list[float] | None:
        completion = choice if self._is_whole else choice["text"]
        try:
            readings = list(self.fn_completion_parser(completion))
        except Exception:
            # Parsers raise whatever a text that they do not know leads them to.
            return None
        usable = all(isinstance(r, int | float) and not math.isnan(r) for r in readings)
        return readings if usable and len(readings) == self.batch_size else None

    def _parse_completions(self, completions: Any) -> Any:
        preferences, raw = super()._parse_completions(completions)
        # A parser's draw is 0, which the package then refuses as no preference.
        return [1.5 if value == 0 else value for value in preferences], raw


def _options(config: AnnotatorConfig, template: str, asking: Asking) -> AnnotatorOptions:
    """The options for the package's OpenAI function, whichever one the annotator names."""
    options = sent_options(config, template)
    # Looked up here, for it warns each time that it does not know the model.
    options.setdefault("price_per_token", _get_price_per_token(asking.model))
    options["num_procs"] = 1
    if asking.replicate:
        options["seed"] = asking.replicate
    return options


def _is_chat(options: AnnotatorOptions) -> bool:
    return bool(options.get("requires_chatml", _requires_chatml(options["model_name"])))


def _can_be_chat(prompt: str) -> bool:
    """Whether the package can cut a prompt into messages."""
    try:
        utils.prompt_to_chatml(prompt)
    except Exception:
        # It indexes and asserts, whatever the text.
        return False
    return True


def _bodies(prompts: Sequence[str], options: AnnotatorOptions) -> list[Body]:
    """The bodies of the requests that the package would send, in its order."""
    bodies: list[Body] = []

    def note(batch: tuple[Any, int], is_chat: bool, **more: object) -> list[Choice]:
        prompt, most = batch
        body = {"messages": prompt[0]} if is_chat else {"prompt": list(prompt)}
        sampling = {"top_p": TOP_P, "temperature": TEMPERATURE, **more, "max_tokens": most}
        body |= {k: v for k, v in sampling.items() if k not in NOT_SENT and v is not None}
        bodies.append(cast("Body", body))
        return [EMPTY] * len(prompt)

    _completions(prompts, options, note)
    return bodies


def _width(body: Body) -> int:
    """Prompts in one request."""
    return len(body["prompt"]) if "prompt" in body else 1


def _completions(
    prompts: Sequence[str], options: AnnotatorOptions, request: Callable[..., Any]
) -> dict[str, list[Any]]:
    """What the package's OpenAI function makes of these prompts, with `request` for the function that
    makes one of its requests."""
    openai = _copy("alpaca_eval.decoders.openai", _openai_completion_helper=request)
    result: dict[str, list[Any]] = openai.openai_completions(prompts, **options)
    return result


class LengthControlled(TypedDict):
    """Of the package's figures those that are read here."""

    length_controlled_winrate: float
    lc_standard_error: float
    n_total: int


def length_controlled(rows: list[Annotation], folder: Path) -> LengthControlled:
    """The package's length-controlled figures of annotations, its file taken from `folder`, which may
    be the file itself."""

    def local_file(*, filename: str, **hub: Any) -> str:
        return str(folder / filename if folder.is_dir() else folder)

    glm = _copy("alpaca_eval.metrics.glm_winrate", hf_hub_download=local_file)
    result: LengthControlled = glm.get_length_controlled_winrate(
        pd.DataFrame(rows), save_weights_dir=None, is_add_glm_preference_inplace=False
    )
    return result


def _copy(name: str, **instead: Any) -> Any:
    """A module of the package executed once more, with other functions under some of its names."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    missing = instead.keys() - vars(module).keys()
    assert not missing, f"{name} of alpaca_eval has no {', '.join(missing)}"
    vars(module).update(instead)
    return module
