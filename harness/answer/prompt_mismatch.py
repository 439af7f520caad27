"""Whether a trained model is asked in the way that it was trained: the finding `prompt_mismatch`.

The train stage leaves its template beside the model. Where that and the template of the answers make
other tokens of a probe, the two prompts are taken apart (system text, what marks the user's turn, what
comes after it up to the answer) and what differs is named.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.answer.answer import Answer
from harness.artefact.call import StageCall
from harness.artefact.manifest import Finding
from harness.errors import InputError
from harness.modeling.load import TRAINED, load_tokenizer
from harness.modeling.tokenizer_template import special_tokens
from harness.spec.model_source import ModelSource
from harness.spec.template import PROMPTS, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.modeling.text import Encoder

KIND = "prompt_mismatch"
TEMPLATE = "template.json"
"""What the train stage calls its template."""
PROBE, PROBE_INPUT = "Name three colours.", "Not red."

MISSING_HEADER = "missing assistant header"
NEW_HEADER = "an assistant header that training had not"
MISSING_SYSTEM = "missing system text"
NEW_SYSTEM = "a system text that training had not"
OTHER_SYSTEM = "another system text"
ROLE_MARKERS = "other role markers"
WHITE_SPACE = "other white space"
SPECIAL_TOKENS = "other special tokens"
INPUT = "an input stands in another way"
SPLIT = "the same text in other tokens"
OTHER_END = "another end of the answers"
OTHER = "another text"
GRAVE = {MISSING_HEADER, ROLE_MARKERS}
"""What makes a trained model answer as an untrained one: an error. The rest is a warning."""

_SYSTEM_BLOCKS = (
    r"<\|im_start\|>system\n(?P<text>.*?)<\|im_end\|>\n?",
    r"<<SYS>>\n(?P<text>.*?)\n?<</SYS>>\n*",
    r"<\|start_header_id\|>system<\|end_header_id\|>\n\n(?P<text>.*?)<\|eot_id\|>",
    r"<\|system\|>\n(?P<text>.*?)(?:</s>|<\|end\|>|<\|endoftext\|>)?\n(?=<\|)",
    r"<start_of_turn>system\n(?P<text>.*?)<end_of_turn>\n",
)
"""How chat layouts write a system text."""
_MARK = r"<\|?/?[\w ]+\|?>"


class _Parts(NamedTuple):
    system: str
    user: str
    """What stands between the system text and the instruction."""
    header: str
    """What stands between the instruction and the answer."""


def findings(call: StageCall, params: Answer, source: ModelSource | None) -> list[Finding]:
    """One finding, or none: where the row's trained model answers by another prompt than it learnt.

    `evidence`: `differs` (the names above), `training_prompt` and `evaluation_prompt` (the texts that
    the probe's tokens stand for), `first_difference` (which token, and the tokens there), and what
    ends an answer by each.
    """
    if not params.engine.uses_model or source is None or TRAINED not in call.inputs:
        return []
    assert params.template is not None, "a row whose own model answers has a template"
    path = Path(call.inputs[TRAINED]) / TEMPLATE
    if not path.is_file():
        return []
    learnt = read_template(path)
    if learnt == params.template:
        return []
    return compare(learnt, params.template, load_tokenizer(source, call.inputs))


def read_template(path: Path) -> Template:
    """The template that a train stage left. Raises InputError where it cannot be read."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        for name in PROMPTS:
            if isinstance(fields.get(name), str):
                # A last newline does not count; the file was written without it.
                fields[name] = {"path": path.name, "text": fields[name] + "\n"}
        return Template.model_validate(fields)
    except (OSError, ValueError, AttributeError, RecursionError) as e:
        raise InputError(f"the training template in {path} cannot be read: {e}") from None


def compare(
    learnt: Template, evaluation: Template, tokenizer: "PreTrainedTokenizerBase"
) -> list[Finding]:
    """As `findings`, for two templates with a tokenizer."""
    from harness.modeling.text import Encoder

    first, second = Encoder(tokenizer, learnt), Encoder(tokenizer, evaluation)
    trained, evaluated = first.prompt(PROBE), second.prompt(PROBE)
    probe, differs = PROBE, []
    if trained != evaluated:
        differs = _differences(trained, evaluated, learnt, evaluation, tokenizer)
    else:
        with_input = first.prompt(PROBE, PROBE_INPUT), second.prompt(PROBE, PROBE_INPUT)
        if with_input[0] != with_input[1]:
            probe, differs = f"{PROBE} / {PROBE_INPUT}", [INPUT]
            trained, evaluated = with_input
    ends = {tokenizer.eos_token_id, *second.end_ids}
    if not ends.issuperset(first.end_ids) or not set(second.stop).issuperset(first.stop):
        differs.append(OTHER_END)
    if not differs:
        return []
    at = next(
        (i for i, (a, b) in enumerate(zip(trained, evaluated, strict=False)) if a != b),
        min(len(trained), len(evaluated)),
    )
    message = (
        f"the answers' prompt is not the one that the model was trained with: {', '.join(differs)}"
    )
    first_difference = {
        "token": at,
        "training": _shown(tokenizer, trained[at:]),
        "evaluation": _shown(tokenizer, evaluated[at:]),
    }
    evidence = {
        "differs": differs,
        "probe": probe,
        "training_prompt": _text(tokenizer, trained),
        "evaluation_prompt": _text(tokenizer, evaluated),
        "training_end": _ending(tokenizer, first),
        "evaluation_end": _ending(tokenizer, second),
        "first_difference": None if trained == evaluated else first_difference,
    }
    return [Finding(KIND, "error" if GRAVE & set(differs) else "warning", message, evidence)]


def _differences(
    trained: list[int],
    evaluated: list[int],
    learnt: Template,
    evaluation: Template,
    tokenizer: "PreTrainedTokenizerBase",
) -> list[str]:
    text, other = _text(tokenizer, trained), _text(tokenizer, evaluated)
    special = set(tokenizer.convert_tokens_to_ids(special_tokens(tokenizer)))
    specials, other_specials = special & set(trained), special & set(evaluated)
    if text == other:
        return [SPECIAL_TOKENS if specials != other_specials else SPLIT]
    a, b = _parts(text, learnt.system), _parts(other, evaluation.system)
    differences = []
    if a is None or b is None:
        differences.append(OTHER)
    else:
        # The turn's end is no header: what counts are the words after it.
        words = _words(a.header, tokenizer), _words(b.header, tokenizer)
        if words[0] and not words[1]:
            differences.append(MISSING_HEADER)
        elif words[1] and not words[0]:
            differences.append(NEW_HEADER)
        system, other_system = a.system.strip(), b.system.strip()
        if system != other_system:
            differences.append(
                OTHER_SYSTEM
                if system and other_system
                else (MISSING_SYSTEM if system else NEW_SYSTEM)
            )
        users = _words(a.user, tokenizer), _words(b.user, tokenizer)
        if users[0] != users[1] or (all(words) and words[0] != words[1]):
            differences.append(ROLE_MARKERS)
        else:
            pairs = [(a.user, b.user), (a.system, b.system)]
            # Of a header that is not there, no space is missing.
            pairs += [(a.header, b.header)] if bool(words[0]) == bool(words[1]) else []
            if any(_same_but_space(x, y) for x, y in pairs):
                differences.append(WHITE_SPACE)
    if specials != other_specials:
        differences.append(SPECIAL_TOKENS)
    return differences or [OTHER]


def _parts(text: str, system: str) -> _Parts | None:
    """None where the probe does not stand in the text as it is. `system`: the template's own."""
    before, probe, header = text.partition(PROBE)
    if not probe:
        return None
    for pattern in _SYSTEM_BLOCKS:
        block = re.search(pattern, before, re.DOTALL)
        if block is not None:
            return _Parts(block["text"], before[: block.start()] + before[block.end() :], header)
    if system and system in before:
        start, _, rest = before.partition(system)
        return _Parts(system, start + rest.lstrip("\n"), header)
    # The last line marks the user's turn; what stands before it is told to the model.
    lines = before.rstrip("\n")
    cut = lines.rfind("\n") + 1
    return _Parts(before[:cut], before[cut:], header)


def _words(text: str, tokenizer: "PreTrainedTokenizerBase") -> str:
    """What is left without special tokens, written out or real, and without white space."""
    for special in special_tokens(tokenizer):
        text = text.replace(special, " ")
    return "".join(re.sub(_MARK, " ", text).split())


def _same_but_space(text: str, other: str) -> bool:
    return text != other and "".join(text.split()) == "".join(other.split())


def _ending(tokenizer: "PreTrainedTokenizerBase", encoder: "Encoder") -> list[str]:
    return [*_shown(tokenizer, encoder.end_ids), *encoder.stop]


def _text(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _shown(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> list[str]:
    return [_text(tokenizer, [token]) for token in ids[:8]]
