"""alpaca_eval's annotators: their configurations, what is said of them, and the forms in which they ask
and are answered. Nothing here imports the package."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Required, TypedDict, cast

import yaml

from harness.errors import InputError
from harness.judge.kinds.alpaca_eval.readings import check_annotator
from harness.llm.body import Body
from harness.llm.reply import Kind, Reply, Response
from harness.spec.base import Endpoint


class AnnotatorOptions(TypedDict, total=False):
    """An annotator's `completions_kwargs`, as far as they are read or set here."""

    model_name: str
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    logprobs: bool
    tokens_to_avoid: list[str]
    tokens_to_favor: list[str]
    requires_chatml: bool
    batch_size: int
    num_procs: int
    price_per_token: float


class AnnotatorConfig(TypedDict, total=False):
    """An annotator's configuration, as far as it is read here."""

    fn_completions: Required[str]
    completions_kwargs: AnnotatorOptions
    batch_size: int


class Choice(TypedDict, total=False):
    """One of OpenAI's choices, as far as it is read here, and what the package adds."""

    index: int | None
    message: dict[str, Any] | None
    logprobs: dict[str, Any] | None
    text: str
    total_tokens: float


Read = Callable[[Reply], object]
"""None for a reply that cannot be read."""
Ask = Callable[[Sequence[Body], Kind, Read], list[Reply]]
"""Asks all bodies, again where a reply cannot be read; one reply for each."""
Choices = dict[str, tuple[Choice, Reply]]
"""Instruction -> the choice about it, as the package takes it, and the reply that it is of."""

OPENAI = "openai_completions"
OTHER_NAMES = {"max_tokens_to_sample": "max_tokens", "max_new_tokens": "max_tokens"}
"""AnnotatorOptions of other vendors' functions -> OpenAI's."""
GREEDY = ("huggingface_api_completions", "huggingface_local_completions")
"""Functions that do not sample unless they are told to."""
_HUMAN = re.compile(r"\s*Human:(?P<text>.*)\n\nAssistant:\s*", re.DOTALL)


def read_annotators(folder: Path, name: str) -> dict[str, AnnotatorConfig]:
    """The configurations under one name: one annotator, or a pool of several. `folder`: the package's.

    Raises:
        InputError: there is none of this name, or one has to know the tokens of a tokenizer that is
            not on this machine.
    """
    check_annotator(name)
    text = (folder / name / "configs.yaml").read_text(encoding="utf-8")
    configs: dict[str, AnnotatorConfig] = yaml.safe_load(text)
    for config in configs.values():
        _check_tokens(name, config.get("completions_kwargs", {}))
    return configs


def _check_tokens(name: str, options: AnnotatorOptions) -> None:
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


def named_models(configs: dict[str, AnnotatorConfig]) -> list[str]:
    """The models that the annotators ask when the package runs on its own."""
    return sorted(
        {str(c.get("completions_kwargs", {}).get("model_name")) for c in configs.values()}
    )


def deviations(name: str, configs: dict[str, AnnotatorConfig], judge: Endpoint) -> list[str]:
    """In words, in what the judge differs from the package's own."""
    notes = []
    if named_models(configs) != [judge.model]:
        model = f"{'simulated ' * (judge.simulated is not None)}{judge.model}"
        models = " and ".join(named_models(configs))
        notes.append(f"alpaca_eval's annotator {name} is {models}; {model} judged in its place")
    functions = sorted({c["fn_completions"] for c in configs.values()} - {OPENAI})
    if functions:
        notes.append(
            f"alpaca_eval asks {name} through {', '.join(functions)}; here it was asked through an "
            "OpenAI-compatible endpoint"
        )
    return notes


def needs_log_probs(configs: dict[str, AnnotatorConfig]) -> bool:
    return any(c.get("completions_kwargs", {}).get("logprobs") for c in configs.values())


def has_log_probs(choice: Choice) -> bool:
    """Whether a choice has the log-probs of its tokens' rivals."""
    content = (choice.get("logprobs") or {}).get("content") or []
    return bool(content) and all(token.get("top_logprobs") for token in content)


def sent_options(config: AnnotatorConfig, template: str) -> AnnotatorOptions:
    """An annotator's options under the names that the package's OpenAI function has for them."""
    options = (config.get("completions_kwargs") or AnnotatorOptions()).copy()
    if config["fn_completions"] != OPENAI:
        renamed = {OTHER_NAMES.get(k, k): v for k, v in options.items()}
        names = ("model_name", "max_tokens", "temperature", "top_p")
        options = cast("AnnotatorOptions", {k: renamed[k] for k in names if k in renamed})
        if config["fn_completions"] in GREEDY:
            options.setdefault("temperature", 0)
        options["requires_chatml"] = as_chat(template).lstrip().startswith("<|im_start|>")
        options["batch_size"] = 1
    return options


def as_chat(prompt: str) -> str:
    """A prompt in Anthropic's old form as ChatML; any other one as it is."""
    match = _HUMAN.fullmatch(prompt)
    return prompt if match is None else f"<|im_start|>user\n{match['text'].strip()}\n<|im_end|>"


UNCUT: Response = {"error": {"code": "broken_prompt"}}
"""Stands for the response to a prompt that the package cannot cut into messages."""
EMPTY: Choice = {"text": "", "total_tokens": 0}
"""What the package itself takes for a prompt that the server declined."""


def choices_of(reply: Reply, kind: Kind, all_fields: bool) -> list[Choice]:
    """A reply's choices with their texts as the package makes them of one; none of a prompt that was
    declined. all_fields: every one that the package's client knows, which takes its time."""
    choices = [choice.copy() for choice in cast("list[Choice]", reply.raw.get("choices") or [])]
    if all_fields and choices:
        from openai.types import Completion
        from openai.types.chat import ChatCompletion

        parsed = (ChatCompletion if kind == "chat" else Completion).construct(**reply.raw)
        choices = [cast("Choice", choice.model_dump()) for choice in parsed.choices]
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
