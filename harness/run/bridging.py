"""The published judge's verdicts on the answers of a bridging model; and which answers are the same."""

import contextlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

from harness.answer.answer import Answer
from harness.answer.outputs import given_records
from harness.answer.prompts import Prompt
from harness.artefact.keys import Files
from harness.common.progress import counted
from harness.data.records import Record, read_records, text_field
from harness.errors import InputError, raise_all
from harness.judge.judge import Reference
from harness.row.published_judge import is_baseline, is_named
from harness.row.rejudged import AGAINST_ITSELF, OWN_BRIDGE, RetiredVerdicts
from harness.row.reported import PublishedJudge
from harness.spec.base import SHA256, DataPath
from harness.spec.prompts import OutputFiles
from harness.stats.bridge import FEWEST_PROMPTS

PromptPlace = tuple[str, str, int]
"""Instruction, input, and which time they stand in the prompt set, from 0."""
Texts = dict[tuple[str, str], str]
"""Instruction and input -> an answer to them, with one space for all white space."""
SAME_MODEL = 0.5
"""The share of answers from which on they are one model's: of ten published files of Mini-LIMA's, those
of different models share 42 of 805 at most, and the three of one model all 805."""
SAME_ANSWERS = 0.9
"""The share from which on a row's own given answers are the study's own. It is larger: a model that was
made as the study's was, and answers greedily, may well give many of the same."""
BRIDGE_NEEDS = "A bridge needs verdicts of the judge that gave the published number."
ANNOTATIONS_NEEDED = "reported.annotations are the verdicts that the published number rests on."
OUTPUTS_JUDGED = "Give the outputs that were judged (reported.bridge, outputs)."
NO_BRIDGE = (
    "Leave that model out of reported.bridge. Where its answers are the study's own for the row, name "
    "them as reported.outputs, and give the row answers of its own (eval.answer.engine)."
)


def verdicts_of(retired: RetiredVerdicts, answer: Answer, files: Files) -> dict[PromptPlace, float]:
    """The published judge's verdicts on a bridging model's answers.

    Raises:
        NotFetched, DataAbsent: a file is not there.
        InputError: one is not the file that its spec pins, or as `read_verdicts`.
    """
    given = answer.engine.given_outputs
    assert isinstance(given, DataPath)
    return read_verdicts(files.pinned(retired.annotations), retired.judge, files.pinned(given))


def check_pairs(path: Path, verdicts: Set[PromptPlace], prompts: Sequence[Prompt]) -> None:
    """Raises InputError where both judges could have judged too few of the prompts that a bridging
    model is asked. `path`: the file of the published judge's verdicts."""
    places: Counter[tuple[str, str]] = Counter()
    asked: set[PromptPlace] = set()
    for prompt in prompts:
        asked.add((*prompt.key, places[prompt.key]))
        places[prompt.key] += 1
    both = len(asked & verdicts)
    if both < FEWEST_PROMPTS:
        raise InputError(
            f"{path}: of its {counted(len(verdicts), 'verdict')} {both} are on the "
            f"{counted(len(asked), 'prompt')} that the row asks of this bridging model, and a bridge "
            f"needs {FEWEST_PROMPTS}",
            "Give the published judge's verdicts on the row's own prompts, a larger sample "
            "(reported.bridge, prompts), or the study's own answers (reported.outputs).",
        )


def read_verdicts(path: Path, judge: PublishedJudge, outputs: Path) -> dict[PromptPlace, float]:
    """Of an annotations file in alpaca_eval's format: each prompt's score, 0 (lost) to 1 (won); without
    the prompts that have none.

    Raises:
        InputError: it is no such file, or its verdicts are another annotator's, against another
            baseline, on other outputs, or two that differ on one output: the first of each kind.
    """
    # Reading it imports all readers of an audit, which no plan or table needs.
    from harness.audit.parse.judged_pairs import as_preference

    answered = read_records(outputs)
    answers, names = _answers(outputs, answered), _names(outputs, answered)
    # A prompt that is asked twice has two outputs, and two verdicts.
    texts: dict[tuple[str, str], list[str]] = defaultdict(list)
    for prompt, text in answers:
        texts[prompt].append(text)
    records_on: Counter[PromptPlace] = Counter()
    times: Counter[tuple[str, str]] = Counter()
    verdicts: dict[PromptPlace, float] = {}
    faults: dict[str, list[InputError]] = defaultdict(list)
    for record in read_records(path):
        fields = record.fields
        for kind, fault in _faults_of_judge(record.place(path), fields, judge, BRIDGE_NEEDS):
            faults[kind].append(fault)
        try:
            prompt = text_field(path, record, "instruction"), text_field(path, record, "input", "")
        except InputError as e:
            faults["prompt"].append(e)
            continue
        judged = fields.get("output_2")
        given = texts.get(prompt, [])
        places = [
            n
            for n, text in enumerate(given)
            if not isinstance(judged, str) or text == judged.strip()
        ]
        if given and not places:
            faults["output"].append(
                InputError(
                    f"{record.place(path)}: its verdict is on another output than {outputs} has for "
                    f"the prompt {prompt[0][:60]!r}",
                    OUTPUTS_JUDGED,
                )
            )
        generator = fields.get("generator_2")
        if not (isinstance(judged, str) or generator is None or _is_one_of(names, generator)):
            faults["generator"].append(
                InputError(
                    f"{record.place(path)}: it has no output (output_2), and that of {generator!r:.60} "
                    f"was judged (generator_2): neither {outputs} nor its `generator` is called so",
                    OUTPUTS_JUDGED,
                )
            )
        preference, _ = as_preference(fields.get("preference"))
        # One more than there are such outputs is on one whose judging failed before, or repeats one.
        place = min(
            ((*prompt, n) for n in places or [times[prompt]]),
            key=lambda place: (place in verdicts, records_on[place]),
        )
        records_on[place] += 1
        times[prompt] += 1
        if preference is None:
            continue
        if verdicts.setdefault(place, preference - 1) != preference - 1:
            faults["second"].append(
                InputError(
                    f"{record.place(path)}: a second, other verdict on the same output, of the prompt "
                    f"{prompt[0][:60]!r}",
                    "Which of them the published number counts is not known. Give the file that it is "
                    "computed from.",
                )
            )
    raise_all([_first(alike) for alike in faults.values()])
    if not verdicts:
        raise InputError(
            f"{path} holds no verdicts from 1 (lost) to 2 (won)",
            "A bridge needs an annotations.json: instruction and preference of each prompt.",
        )
    return verdicts


def check_published(
    path: Path, judges: Sequence[PublishedJudge | None], reference: Reference | None
) -> None:
    """Look whose the verdicts are that a study published of a row, as far as they are in alpaca_eval's
    format. `judges`: of its published numbers; `reference`: the row's own, which the baseline of a
    published judge must be that names none.

    Raises:
        InputError: they are another annotator's, or against another baseline: the first of each kind.
    """
    faults: dict[str, list[InputError]] = defaultdict(list)
    for file in sorted(path.rglob("*.json*")) if path.is_dir() else [path]:
        records: Sequence[Record] = []
        with contextlib.suppress(InputError):  # another format, which an audit looks at
            records = read_records(file)
        for record in records:
            place, fields = record.place(file), record.fields
            of_judges = (
                [
                    *(_faults_of_judge(place, fields, judge, ANNOTATIONS_NEEDED) if judge else ()),
                    *_faults_of_open_baseline(place, fields, judge, reference),
                ]
                for judge in judges
            )
            for kind, fault in min(of_judges, key=len, default=[]):
                faults[kind].append(fault)
    raise_all([_first(alike) for alike in faults.values()])


def check_distinct(
    answer: Answer, files: Files, others: dict[Path, Texts], row: Texts | None = None
) -> None:
    """Look whether a bridging model's answers are another's: of as many prompts as a bridge needs, or
    more, SAME_MODEL of them. `others`: those of the models before it, to which its own are added.
    `row`: the row's own given answers, which they are no more to be.

    Raises:
        NotFetched, DataAbsent: its file is not there.
        InputError: they are, or its file cannot be read, or is not the one that its spec pins.
    """
    given = answer.engine.given_outputs
    assert isinstance(given, DataPath)
    outputs, texts = files.pinned(given), given_texts(given, files)
    copies = {other: alike(texts, theirs) for other, theirs in others.items()}
    others[outputs] = texts
    if text := against_itself(row or {}, texts, OWN_BRIDGE, FEWEST_PROMPTS):
        raise InputError(f"{outputs}: {text}", NO_BRIDGE)
    for other, (same, shared) in copies.items():
        if shared >= FEWEST_PROMPTS and same >= SAME_MODEL * shared:
            raise InputError(
                f"{outputs}: {same} of its {shared} answers to prompts that {other} has too are the "
                "same, but for white space: it is one model all the same",
                "Name each bridging model once (reported.bridge).",
            )


def given_texts(given: DataPath | OutputFiles, files: Files) -> Texts:
    """The answers of given outputs.

    Raises:
        NotFetched, DataAbsent: a file is not there.
        InputError: one cannot be read, or is not the one that its spec pins.
    """
    if isinstance(given, OutputFiles):
        places = {name: _at(files.pinned(file)) for name, file in given.files.items()}
        path, records = given_records(OutputFiles(files=places, output=given.output))
    else:
        path, records = given_records(_at(files.pinned(given)))
    return {prompt: _words(text) for prompt, text in _answers(path, records)}


def against_itself(own: Texts, theirs: Texts, what: str = AGAINST_ITSELF, fewest: int = 1) -> str:
    """That a row's own given answers are those which the study published for it, or a bridging model's
    (`what`), SAME_ANSWERS of `fewest` or more; empty where they are not."""
    same, shared = alike(own, theirs)
    if shared < fewest or same < SAME_ANSWERS * shared:
        return ""
    return f"{what} ({same} of {shared} answers are the same, but for white space)"


def alike(texts: Texts, others: Texts) -> tuple[int, int]:
    """How many answers are the same, and to how many prompts both have one."""
    shared = texts.keys() & others.keys()
    return sum(texts[prompt] == others[prompt] for prompt in shared), len(shared)


def _at(path: Path) -> DataPath:
    return DataPath(path=str(path))


def _answers(outputs: Path, records: Sequence[Record]) -> list[tuple[tuple[str, str], str]]:
    """Of each record instruction and input, and the answer without white space about it."""
    return [
        (
            (text_field(outputs, r, "instruction"), text_field(outputs, r, "input", "")),
            text_field(outputs, r, "output").strip(),
        )
        for r in records
    ]


def _names(outputs: Path, records: Sequence[Record]) -> set[str]:
    """What the outputs are called: as their records say, and as the file and its folders are."""
    generators = (record.fields.get("generator") for record in records)
    return {str(outputs), *(name for name in generators if isinstance(name, str))}


def _is_one_of(names: Set[str], generator: object) -> bool:
    return isinstance(generator, str) and any(
        is_named(generator, name) or is_named(name, generator) for name in names
    )


def _words(text: str) -> str:
    """The text with one space for all white space."""
    return " ".join(text.split())


def _first(faults: Sequence[InputError]) -> InputError:
    """The first of one kind, with how many more there are in its file."""
    first, more = faults[0], len(faults) - 1
    words = f" (and {counted(more, 'more record')} like it)" if more else ""
    return InputError(f"{first.message}{words}", first.hint)


def _faults_of_judge(
    place: str, fields: Mapping[str, object], judge: PublishedJudge, need: str
) -> Iterator[tuple[str, InputError]]:
    """Of a verdict's annotator and baseline, where they are not the published judge's. A baseline that
    is named by its digest is called nothing that a verdict could name. `need`: of whose verdicts are
    wanted, a sentence."""
    baseline = None if re.fullmatch(SHA256, judge.baseline or "") else judge.baseline
    for name, field, wanted in (
        ("annotator", "annotator", judge.annotator),
        ("baseline", "generator_1", baseline),
    ):
        found = fields.get(field)
        if wanted is None or field not in fields:
            continue
        if not isinstance(found, str):
            message = f"{place}: `{field}` must be a name, not {found!r:.60}"
            yield name, InputError(message, "Give the verdicts as the judge's package wrote them.")
            continue
        if is_named(wanted, found):
            continue
        if name == "baseline" and is_named(found, wanted):  # named as the file that it stands in
            continue
        hint = f"{need} If these are, write reported.judge.{name}: {found}, as they call it."
        if name == "baseline":
            hint += (
                " The row's own reference may be another, or have another name (docs/results.md)."
            )
        message = (
            f"{place}: the {name} of this verdict ({field}) is {found!r}, that of the published number "
            f"(reported.judge.{name}) {wanted!r}"
        )
        yield name, InputError(message, hint)


def _faults_of_open_baseline(
    place: str,
    fields: Mapping[str, object],
    judge: PublishedJudge | None,
    reference: Reference | None,
) -> Iterator[tuple[str, InputError]]:
    """Of a verdict against another baseline than the row's, where the spec says none of the published
    number."""
    found = fields.get("generator_1")
    if reference is None or (judge is not None and judge.baseline is not None):
        return
    if isinstance(found, str) and not is_baseline(found, reference):
        message = (
            f"{place}: the baseline of this verdict (generator_1) is {found!r}, and none of the "
            "published number is given (reported.judge.baseline); the row's own reference is not "
            "called so"
        )
        hint = (
            f"{ANNOTATIONS_NEEDED} Write reported.judge.baseline: {found}, as they call it; or, where "
            "the row's reference has the same outputs, the sha256 of its file (docs/results.md)."
        )
        yield "baseline", InputError(message, hint)
