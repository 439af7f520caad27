"""alpaca_eval's annotators, asking through the harness's client.

The package reads an annotator's configuration and prompt as it ships them, draws the order of the
outputs, makes the requests and parses the replies. Only its calls are not its own: it is given a
function that hands all of a run's requests to the client at once, where it would make an OpenAI
client for each of them in turn.
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import yaml

from harness.errors import InputError
from harness.eval.alpaca_chat import NO_PROMPT, broken_prompts, can_be_chat
from harness.eval.alpaca_readings import check_annotator
from harness.llm.faults import RequestRefused
from harness.llm.replay import ReplayMiss
from harness.llm.reply import REFUSED, Kind, Reply

Read = Callable[[Reply], Any]
"""None for a reply that cannot be read."""
Ask = Callable[[Sequence[dict[str, Any]], Kind, Read], list[Reply]]
"""Asks all bodies, again where a reply cannot be read; one reply for each."""
Said = dict[str, tuple[dict[str, Any], Reply]]
"""Instruction -> the choice about it, as the package takes it, and the reply that it is of."""

OPENAI = "openai_completions"
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
"""Options of the package's own client."""
OTHER_NAMES = {"max_tokens_to_sample": "max_tokens", "max_new_tokens": "max_tokens"}
"""Options of other vendors' functions -> OpenAI's."""
GREEDY = ("huggingface_api_completions", "huggingface_local_completions")
"""Functions that do not sample unless they are told to."""
_HUMAN = re.compile(r"\s*Human:(?P<said>.*)\n\nAssistant:\s*", re.DOTALL)

Config = dict[str, Any]


def read_annotators(name: str) -> dict[str, Config]:
    """The package's configurations under one name: one annotator, or a pool of several.

    Raises:
        InputError: there is none of this name, or one has to know the tokens of a tokenizer that is
            not on this machine.
    """
    from alpaca_eval.constants import EVALUATORS_CONFIG_DIR as folder

    check_annotator(name)
    text = (folder / name / "configs.yaml").read_text(encoding="utf-8")
    configs: dict[str, Config] = yaml.safe_load(text)
    for config in configs.values():
        _check_tokens(name, config.get("completions_kwargs", {}))
    return configs


def _check_tokens(name: str, options: dict[str, Any]) -> None:
    if not (options.get("tokens_to_avoid") or options.get("tokens_to_favor")):
        return
    import tiktoken

    try:
        tiktoken.encoding_for_model(options["model_name"])
    except Exception as e:
        raise InputError(
            f"alpaca_eval's annotator {name!r} favours tokens of {options['model_name']}'s tokenizer, "
            f"which tiktoken cannot load here ({type(e).__name__})",
            hint="put its file into the folder that TIKTOKEN_CACHE_DIR names, or choose another "
            "annotator",
        ) from None


def named_models(configs: dict[str, Config]) -> list[str]:
    """The models that the annotators ask when the package runs on its own."""
    return sorted(
        {str(c.get("completions_kwargs", {}).get("model_name")) for c in configs.values()}
    )


def deviations(name: str, configs: dict[str, Config], model: str) -> list[str]:
    """In words, in what the judge differs from the package's own."""
    notes = []
    if named_models(configs) != [model]:
        theirs = " and ".join(named_models(configs))
        notes.append(f"alpaca_eval's annotator {name} is {theirs}; {model} judged in its place")
    others = sorted({c["fn_completions"] for c in configs.values()} - {OPENAI})
    if others:
        notes.append(
            f"alpaca_eval asks {name} through {', '.join(others)}; here it was asked through an "
            "OpenAI-compatible endpoint"
        )
    return notes


def needs_log_probs(configs: dict[str, Config]) -> bool:
    return any(c.get("completions_kwargs", {}).get("logprobs") for c in configs.values())


def has_log_probs(choice: dict[str, Any]) -> bool:
    """Whether a choice has the log-probs of its tokens' rivals."""
    content = (choice.get("logprobs") or {}).get("content") or []
    return bool(content) and all(token.get("top_logprobs") for token in content)


def annotator_class(model: str, ask: Ask, replicate: int, said: Said) -> type[Any]:
    """The package's annotator with `ask` for its calls.

    model: what is asked, for the price. replicate: a number above 0 goes into the requests as their
    `seed`. said: is filled in.
    """
    from alpaca_eval import annotators, utils
    from alpaca_eval.annotators.pairwise_evaluator import SinglePairwiseAnnotator

    class Single(SinglePairwiseAnnotator):  # type: ignore[misc]
        def __init__(self, **config: Any) -> None:
            template = utils.read_or_return(
                config["prompt_template"], relative_to=config["base_dir"]
            )
            config["completions_kwargs"] = _options(config, template, model, replicate)
            config["fn_completions"] = self._complete
            super().__init__(**config)

        @property
        def _is_whole(self) -> bool:
            """Whether the parser is given the whole choice, not its text."""
            return bool(self.completion_key == "completions_all")

        def _make_prompts(self, *args: Any, **more: Any) -> Any:
            prompts, shown = super()._make_prompts(*args, **more)
            self._instructions = list(shown["instruction"])
            return [_as_chat(prompt) for prompt in prompts], shown

        def _complete(self, prompts: Sequence[str], **options: Any) -> dict[str, list[Any]]:
            kind: Kind = "chat" if _is_chat(options) else "completion"
            template = _as_chat(self.prompt_template)
            broken = broken_prompts(prompts, template) if kind == "chat" else set()
            unmade = {i for i in broken if not can_be_chat(prompts[i])}
            prompts = [NO_PROMPT if i in unmade else prompt for i, prompt in enumerate(prompts)]
            bodies = _bodies(prompts, options)
            replies = self._ask(bodies, broken, unmade, kind)
            answers = [
                [*_choices(reply, kind, self._is_whole), *[_EMPTY] * _width(body)][: _width(body)]
                for body, reply in zip(bodies, replies, strict=True)
            ]
            each = [
                (choice, reply)
                for answer, reply in zip(answers, replies, strict=True)
                for choice in answer
            ]
            for index, instruction in enumerate(self._instructions):
                said[instruction] = each[index // self.batch_size]
            in_turn = iter(answers)
            with _calls_of_the_package(lambda given, **more: next(in_turn)):
                return _openai_completions(prompts, options)

        def _ask(
            self, bodies: Sequence[dict[str, Any]], broken: set[int], unmade: set[int], kind: Kind
        ) -> list[Reply]:
            """One reply for each; as of a declined prompt for what cannot be sent (`unmade`), and for
            a broken one that the server does not accept."""

            def asked(some: Sequence[dict[str, Any]]) -> list[Reply]:
                return ask(some, kind, lambda reply: self._read_reply(reply, kind))

            sound = [i for i in range(len(bodies)) if i not in broken]
            found = dict(zip(sound, asked([bodies[i] for i in sound]), strict=True))
            for i in sorted(broken):
                found[i] = Reply("", REFUSED, "", {}, UNCUT, simulated=False, reused=False)
                # Each by itself, for a call that fails for good stops those beside it. A replay
                # finds that it failed.
                with contextlib.suppress(RequestRefused, ReplayMiss):
                    if i not in unmade:
                        [found[i]] = asked([bodies[i]])
            return [found[i] for i in range(len(bodies))]

        def _read_reply(self, reply: Reply, kind: Kind) -> list[list[Any]] | None:
            """The readings of a reply's choices, None unless every one can be read."""
            choices = _choices(reply, kind, self._is_whole)
            found = [r for r in map(self._read, choices) if r is not None]
            return found if found and len(found) == len(choices) else None

        def _read(self, choice: dict[str, Any]) -> list[Any] | None:
            completion = choice if self._is_whole else choice["text"]
            try:
                readings = list(self.fn_completion_parser(completion))
            except Exception:
                # Parsers raise whatever a text that they do not know leads them to.
                return None
            usable = all(isinstance(r, int | float) and not math.isnan(r) for r in readings)
            return readings if usable and len(readings) == self.batch_size else None

        def _parse_completions(self, completions: Any) -> Any:
            found, raw = super()._parse_completions(completions)
            # A parser's draw is 0, which the package then refuses as no preference.
            return [1.5 if value == 0 else value for value in found], raw

    class Annotator(annotators.PairwiseAnnotator):  # type: ignore[misc]
        @property
        def SingleAnnotator(self) -> type[Any]:
            return Single

        def _get_other_output_keys_to_keep(self, *args: Any) -> list[str]:
            # A set's order, which is another one in each process.
            return sorted(super()._get_other_output_keys_to_keep(*args))

    return Annotator


def _options(config: Config, template: str, model: str, replicate: int) -> dict[str, Any]:
    """The options for the package's OpenAI function, whichever one the annotator names."""
    from alpaca_eval.decoders.openai import _get_price_per_token

    options = dict(config.get("completions_kwargs") or {})
    if config["fn_completions"] != OPENAI:
        options = {OTHER_NAMES.get(k, k): v for k, v in options.items()}
        kept = ("model_name", "max_tokens", "temperature", "top_p")
        options = {k: options[k] for k in kept if k in options}
        if config["fn_completions"] in GREEDY:
            options.setdefault("temperature", 0)
        options["requires_chatml"] = _as_chat(template).lstrip().startswith("<|im_start|>")
        options["batch_size"] = 1
    # Looked up here, for it warns each time that it does not know the model.
    options.setdefault("price_per_token", _get_price_per_token(model))
    options["num_procs"] = 1
    if replicate:
        options["seed"] = replicate
    return options


def _as_chat(prompt: str) -> str:
    """A prompt in Anthropic's old form as ChatML; any other one as it is."""
    found = _HUMAN.fullmatch(prompt)
    return prompt if found is None else f"<|im_start|>user\n{found['said'].strip()}\n<|im_end|>"


def _is_chat(options: dict[str, Any]) -> bool:
    from alpaca_eval.decoders.openai import _requires_chatml

    return bool(options.get("requires_chatml", _requires_chatml(options["model_name"])))


def _bodies(prompts: Sequence[str], options: dict[str, Any]) -> list[dict[str, Any]]:
    """The bodies of the requests that the package would send, in its order."""
    bodies: list[dict[str, Any]] = []

    def note(given: tuple[Any, int], is_chat: bool, **more: Any) -> list[dict[str, Any]]:
        asked, most = given
        body = {"messages": asked[0]} if is_chat else {"prompt": list(asked)}
        sampling = {"top_p": TOP_P, "temperature": TEMPERATURE, **more, "max_tokens": most}
        body |= {k: v for k, v in sampling.items() if k not in NOT_SENT and v is not None}
        bodies.append(body)
        return [_EMPTY] * len(asked)

    with _calls_of_the_package(note):
        _openai_completions(prompts, options)
    return bodies


def _openai_completions(prompts: Sequence[str], options: dict[str, Any]) -> dict[str, list[Any]]:
    from alpaca_eval.decoders.openai import openai_completions

    result: dict[str, list[Any]] = openai_completions(prompts, **options)
    return result


@contextlib.contextmanager
def _calls_of_the_package(instead: Callable[..., Any]) -> Iterator[None]:
    """Put `instead` in the place of the function that makes one of the package's requests."""
    from alpaca_eval.decoders import openai

    own = openai._openai_completion_helper

    openai._openai_completion_helper = instead
    try:
        yield
    finally:
        openai._openai_completion_helper = own


UNCUT: dict[str, Any] = {"error": {"code": "broken_prompt"}}
"""Stands for the response to a prompt that the package cannot cut into messages."""
_EMPTY: dict[str, Any] = {"text": "", "total_tokens": 0}
"""What the package itself takes for a prompt that the server declined."""


def _width(body: dict[str, Any]) -> int:
    """Prompts in one request."""
    return len(body["prompt"]) if "prompt" in body else 1


def _choices(reply: Reply, kind: Kind, whole: bool) -> list[dict[str, Any]]:
    """A reply's choices with their texts as the package makes them of one; none of a prompt that was
    declined. whole: with every field that the package's client knows, which takes its time."""
    choices = [dict(choice) for choice in reply.raw.get("choices") or []]
    if whole and choices:
        from openai.types import Completion
        from openai.types.chat import ChatCompletion

        parsed = (ChatCompletion if kind == "chat" else Completion).construct(**reply.raw)
        choices = [choice.model_dump() for choice in parsed.choices]
    total = (reply.usage.get("total_tokens") or 0) / max(len(choices), 1)
    for choice in choices:
        if kind == "chat":
            choice["text"] = _text(choice.get("message") or {})
        choice["total_tokens"] = total
    return sorted(choices, key=lambda choice: choice.get("index") or 0)


def _text(message: dict[str, Any]) -> str:
    """What a chat's message says: the arguments of the function that it calls, if any."""
    calls = [call["function"] for call in message.get("tool_calls") or [] if "function" in call]
    call = calls[0] if calls else message.get("function_call")
    if call:
        return str(call["arguments"])
    # The package takes no empty text for an answer.
    return message.get("content") or " "
