"""The simulated judge: knows the grammar's right answers, and can tell readable text from noise.

A verdict depends on the instruction and the two outputs alone, and swapping the outputs swaps it.
Understands the harness's own prompt (specs/smoke/prompts/judge.txt) and those of alpaca_eval's
annotators `chatgpt`, `alpaca_eval_gpt4` and `weighted_alpaca_eval_gpt4_turbo`. Text in other languages
than English counts as hard to read.
"""

import re
from functools import cache
from typing import Literal, NamedTuple

from harness.sim.facts import RELATIONS
from harness.sim.grammar import GrammarTask, find, fraction, is_right
from harness.sim.reply import Query

Verdict = Literal["a", "b", "tie"]

UNCLEAR = "The two outputs cannot be told apart."
WRONG_FORMAT = "Both outputs have their merits."


class Format(NamedTuple):
    """How a judge's prompt marks its parts, and how the judge has to say its verdict."""

    head: str
    """What comes before the real task, worked examples included, ends with this."""
    before_instruction: str
    before_a: str
    before_b: str
    after: str
    replies: dict[Verdict, str]


OWN = Format(
    "",
    "<instruction>\n",
    "\n</instruction>\n\n<output_a>\n",
    "\n</output_a>\n\n<output_b>\n",
    "\n</output_b>",
    {"a": "a", "b": "b", "tie": "tie"},
)
ALPACA_EVAL = Format(
    "\n# Task:\n",
    "\n## Instruction:\n",
    "\n\n## Output (a):\n",
    "\n\n## Output (b):\n",
    "\n\n## Which is best, Output (a) or Output (b)?",
    {"a": "Output (a)", "b": "Output (b)"},
)
RANKING = Format(
    "Here is the prompt:\n",
    '"instruction": """',
    '""",\n}\n\nHere are the outputs of the models:\n[\n    {\n        "model": "model_1",\n'
    '        "answer": """',
    '"""\n    },\n    {\n        "model": "model_2",\n        "answer": """',
    '"""\n    }\n]\n\nNow please rank the models',
    {
        "a": "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]",
        "b": "[{'model': 'model_1', 'rank': 2}, {'model': 'model_2', 'rank': 1}]",
    },
)
WEIGHTED = Format(
    "## Instruction\n",
    '"instruction": """',
    '""",\n}\n\n## Model Outputs\n\nHere are the unordered outputs from the models. Each output is '
    "associated with a specific model, identified by a unique model identifier.\n\n{\n    {\n        "
    '"model_identifier": "m",\n        "output": """',
    '"""\n    },\n    {\n        "model_identifier": "M",\n        "output": """',
    '"""\n    }\n}\n\n## Task\n',
    {"a": "m", "b": "M"},
)
FORMATS = (OWN, ALPACA_EVAL, RANKING, WEIGHTED)


class Question(NamedTuple):
    """What a judge's prompt asks. `instruction` is None where the parts cannot be told apart."""

    format: Format
    instruction: str | None
    output_a: str = ""
    output_b: str = ""


def read_question(prompt: str) -> Question | None:
    """The parts of a judge's prompt; None for a prompt that is not a judge's."""
    for form in FORMATS:
        _, _, task = prompt.partition(form.head) if form.head else ("", "", prompt)
        _, start, task = task.partition(form.before_instruction)
        task, end, _ = task.rpartition(form.after)
        if not (start and end and form.before_a in task and form.before_b in task):
            continue
        if task.count(form.before_a) > 1 or task.count(form.before_b) > 1:
            return Question(form, None)
        instruction, _, outputs = task.partition(form.before_a)
        output_a, separator, output_b = outputs.partition(form.before_b)
        return (
            Question(form, instruction, output_a, output_b) if separator else Question(form, None)
        )
    return None


_COMMON_WORDS = """
    a an the this that these those i you he she it we they me him her us them my your his its our
    their who what which when where why how and or but if because so as of in on at to from by with
    for about into over after before between under up down out off is are was were be been being am
    do does did have has had can could will would should may might must not no yes there here than
    then also more most some any all each every many much very just only one two other such make
    made get go use used take know say said see think good new first time way people
"""
_COMMON = frozenset(_COMMON_WORDS.split())

_MARKS = "\"'()[].,;:!?*-–—`“”‘’"
_WORD = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*")
_NUMBER = re.compile(r"[$£€]?\d{1,12}(?:[.,:/-]\d{1,6}){0,4}%?")
_VOWEL, _CONSONANT = re.compile("[aeiouy]", re.I), re.compile("[^aeiou]", re.I)
_CLUSTER = re.compile("[bcdfghjklmnpqrstvwxz]{5,}", re.I)
_STUTTER = re.compile(r"([^\W\d_]{1,4}?)\1{3,}")
_ROLE = re.compile(
    r"<\||</?s>|^\W*(?:user|assistant|human|system|instruction|input|output|response|q|a)\W*:",
    re.I | re.M,
)
LONGEST_WORD = 18
FAMILIAR_ENOUGH = 0.3


@cache
def _familiar() -> frozenset[str]:
    facts = (w for r in RELATIONS for key, right in r.facts.items() for w in (key, *right))
    return _COMMON | {part.casefold() for text in facts for part in text.split()}


def _is_plain(word: str) -> bool:
    if word in ("a", "A", "I") or _NUMBER.fullmatch(word):
        return True
    return bool(
        2 <= len(word) <= LONGEST_WORD
        and _WORD.fullmatch(word)
        and _VOWEL.search(word)
        and _CONSONANT.search(word)
        and not _CLUSTER.search(word)
    )


def readability(text: str) -> float:
    """From 0 (empty, or noise) to 1 (plain English).

    A product: the share of characters in plain words; familiar words among them; few repetitions;
    no role words such as `User:`, which show that an answer ran on.
    """
    words = [token.strip(_MARKS) for token in text.split()]
    words = [w for w in words if w]
    if not words or (len(words) == 1 and re.fullmatch(r"\D", words[0])):
        return 0.0
    characters = len(re.sub(r"[\s" + re.escape(_MARKS) + "]", "", text))
    plain = sum(len(re.sub("['’-]", "", w)) for w in words if _is_plain(w)) / max(characters, 1)
    familiar_count = sum(w.casefold() in _familiar() or bool(_NUMBER.fullmatch(w)) for w in words)
    familiar = min(1.0, familiar_count / len(words) / FAMILIAR_ENOUGH)
    variety = min(1.0, 2 * len({w.casefold() for w in words}) / len(words))
    stutter = 0.3 if _STUTTER.search(text) else 1.0
    role = 0.5 if _ROLE.search(text) else 1.0
    return min(1.0, plain) * (0.5 + 0.5 * familiar) * variety * stutter * role


def _overlap(instruction: str, output: str) -> float:
    topics = {w.casefold() for w in _WORD.findall(instruction)} - _COMMON
    words = {w.casefold() for w in _WORD.findall(output)}
    return len(topics & words) / len(topics) if topics else 0.0


def _merit(task: GrammarTask | None, instruction: str, output: str) -> tuple[float, ...]:
    readable = round(readability(output), 1)
    if task is not None:
        return (float(is_right(task, output)), readable)
    return (readable, round(_overlap(instruction, output), 1))


def compare(instruction: str, a: str, b: str, seed: int = 0, ties: bool = True) -> Verdict:
    """Which output serves the instruction better.

    For a task of the grammar a right answer beats a wrong one, and the whole output has to be the
    answer: text that runs on makes it wrong. Of two right ones neither is better; where ties are
    not allowed, the shorter one is. Otherwise the more readable output wins, then, outside the
    grammar, the one that takes up more of the instruction's words, then one drawn by hash.
    """
    if a == b:
        return "tie" if ties else "a" if fraction("same", seed, instruction, a) < 0.5 else "b"
    task = find(instruction)
    merit_a, merit_b = _merit(task, instruction, a), _merit(task, instruction, b)
    if task is not None and merit_a[0] == merit_b[0] == 1:
        if ties:
            return "tie"
        merit_a, merit_b = (-len(a),), (-len(b),)
    if merit_a != merit_b:
        return "a" if merit_a > merit_b else "b"
    return "a" if _luck(seed, instruction, a) > _luck(seed, instruction, b) else "b"


def _luck(seed: int, instruction: str, output: str) -> float:
    return fraction("luck", seed, instruction, output)


def matches(prompt: str) -> bool:
    """Whether a prompt is a judge's."""
    return read_question(prompt) is not None


def reply(query: Query) -> str:
    """The verdict, in the format that the prompt asks for."""
    question = read_question(query.prompt)
    if question is None:
        raise ValueError("not a judge's prompt")
    return WRONG_FORMAT if query.wrong else judge(question, query.seed, query.turned)


_TURNED: dict[Verdict, Verdict] = {"a": "b", "b": "a", "tie": "tie"}


def judge(question: Question, seed: int = 0, turn_round: bool = False) -> str:
    """The judge's reply, in the format that the prompt asks for."""
    if question.instruction is None:
        return UNCLEAR
    form = question.format
    verdict = compare(
        question.instruction, question.output_a, question.output_b, seed, "tie" in form.replies
    )
    return form.replies[_TURNED[verdict] if turn_round else verdict]
