"""What a judge compares: for each prompt the model's output and the baseline's, matched by instruction
and input."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.answer.outputs import OUTPUTS, given_records
from harness.answer.prompts import Prompt, read_prompts
from harness.artefact.call import StageCall
from harness.data.records import Record, read_records, text_field
from harness.errors import InputError
from harness.judge.judge import PairwiseJudge, prompts_of
from harness.spec.base import DataPath
from harness.spec.prompts import OutputFiles

Key = tuple[str, str]
"""An instruction and its input."""
_MATCHED = (
    "prompts{} must be of one set; they are matched by instruction and input, letter by letter"
)
_HINT = _MATCHED.format(", outputs and reference")


@dataclass(frozen=True)
class MatchedOutput:
    """A model's output for a prompt. `cut`: whether it ended at the token limit."""

    output: str
    generator: str
    cut: bool


@dataclass(frozen=True)
class Pair(MatchedOutput):
    """One prompt with both outputs. `set`: which of several prompt sets it is of."""

    instruction: str
    input: str
    dataset: str | None
    baseline: str
    baseline_generator: str
    set: str | None = None

    @property
    def key(self) -> Key:
        return self.instruction, self.input

    @property
    def is_identical(self) -> bool:
        """Whether both outputs are the same: a draw, about which no judge is asked."""
        return self.output == self.baseline


def read_pairs(call: StageCall, judge: PairwiseJudge) -> list[Pair]:
    """One pair for each prompt, in the prompts' order.

    Outputs are matched by instruction and input; the baseline's as well where its file has inputs,
    and else by the instruction alone. A prompt that several of the set's files hold is a pair in
    each of them.

    Raises:
        InputError: a file cannot be read, an instruction is there twice, an output is missing or is
            for another prompt, or a prompt has no baseline.
    """
    prompt_set = prompts_of(call)
    prompts = read_prompts(prompt_set, call.inputs.get("prompts"))
    places = Counter(prompt.key for prompt in prompts)
    outputs_file, outputs, faults = _outputs(call, places)
    reference_file, records = _reference(call, judge)
    baselines = _baselines(reference_file, records, places)
    faults.append(_no_baseline(prompts, baselines, reference_file))
    _refuse(faults, _HINT)
    several = prompt_set.files is not None
    return [
        _pair(
            prompt,
            several,
            (outputs_file, outputs[prompt.key]),
            (reference_file, baselines[prompt.key]),
        )
        for prompt in prompts
    ]


def check_baselines(given: DataPath | OutputFiles, prompts: Sequence[Prompt]) -> None:
    """Raises InputError where the reference file cannot be read or lacks an output for a prompt."""
    places = Counter(prompt.key for prompt in prompts)
    path, records = given_records(given)
    baselines = _baselines(path, records, places)
    _refuse([_no_baseline(prompts, baselines, path)], _HINT)
    for record in baselines.values():
        text_field(path, record, "output")


def read_outputs(
    call: StageCall, prompts: Sequence[Prompt], of_all: bool = True
) -> list[MatchedOutput]:
    """The model's output for each prompt, in their order, matched by instruction and input. `of_all`:
    whether there are no other prompts.

    Raises:
        InputError: as `read_pairs` does of the outputs.
    """
    path, outputs, faults = _outputs(call, Counter(prompt.key for prompt in prompts), of_all)
    _refuse(faults, _MATCHED.format(" and outputs"))
    return [_matched(path, outputs[prompt.key]) for prompt in prompts]


def _outputs(
    call: StageCall, places: Counter[Key], of_all: bool = True
) -> tuple[Path, dict[Key, Record], list[str]]:
    """The file of the model's outputs, these, and what does not fit. One may stand as often as its
    prompt does, with the same text."""
    path = Path(call.inputs["outputs"]) / OUTPUTS
    keyed = [(_key(path, record), record) for record in read_records(path)]
    outputs = _each_once(path, keyed, places)
    faults = [
        _missing(places, outputs, "prompts have no output", f"in {path}"),
        _missing(outputs, places, f"outputs in {path} are for prompts that are not", "")
        if of_all
        else "",
    ]
    return path, outputs, faults


def _refuse(faults: Sequence[str], hint: str) -> None:
    if any(faults):
        raise InputError("\n".join(filter(None, faults)), hint=hint)


def _reference(call: StageCall, judge: PairwiseJudge) -> tuple[Path, list[Record]]:
    if judge.baseline_file is not None:
        return given_records(judge.baseline_file)
    if "baseline" not in call.inputs:
        raise InputError("the stage was not given the outputs of the row that is the reference")
    path = Path(call.inputs["baseline"]) / OUTPUTS
    return path, read_records(path)


def _baselines(path: Path, records: Sequence[Record], places: Counter[Key]) -> dict[Key, Record]:
    """The reference's outputs for these prompts; it may have others."""
    if any(_input(path, record) for record in records):
        prompts_of_key = {key: [key] for key in places}
        keys = [_key(path, record) for record in records]
    else:
        prompts_of_key = {}
        for key in places:
            prompts_of_key.setdefault((key[0], ""), []).append(key)
        keys = [(text_field(path, record, "instruction"), "") for record in records]
        shared = [
            key for key, prompts in prompts_of_key.items() if len(prompts) > 1 and key in set(keys)
        ]
        if shared:
            raise InputError(
                f"{path} has no inputs, and {len(shared)} of the prompts' instructions come with "
                f"several, for example {_short(shared[0][0])}",
                hint="give the reference's records the input that each was answered with",
            )
    keyed = [
        (prompt, record)
        for key, record in zip(keys, records, strict=True)
        for prompt in prompts_of_key.get(key, [])
    ]
    return _each_once(path, keyed, places)


def _key(path: Path, record: Record) -> Key:
    return text_field(path, record, "instruction"), _input(path, record)


def _input(path: Path, record: Record) -> str:
    return "" if record.fields.get("input") is None else text_field(path, record, "input")


def _each_once(
    path: Path, keyed: Iterable[tuple[Key, Record]], places: Counter[Key]
) -> dict[Key, Record]:
    """Raises InputError for a key that comes more often than its prompt, or with several outputs."""
    by_key: dict[Key, Record] = {}
    times: Counter[Key] = Counter()
    repeated = []
    for key, record in keyed:
        first = by_key.setdefault(key, record)
        times[key] += 1
        same = first.fields.get("output") == record.fields.get("output")
        if times[key] > 1 and (not same or times[key] > places[key]):
            repeated.append(key)
    if repeated:
        raise InputError(
            f"{len(set(repeated))} instructions are in {path} more than once, for example "
            f"{_short(repeated[0][0])}",
            hint="outputs are matched by instruction and input: give each only once",
        )
    return by_key


def _no_baseline(prompts: Sequence[Prompt], baselines: Iterable[Key], path: Path) -> str:
    places = {prompt.key: prompt.place for prompt in reversed(prompts)}
    return _missing(
        dict.fromkeys(prompt.key for prompt in prompts),
        baselines,
        "prompts have no baseline output",
        f"in {path}",
        places,
    )


def _missing(
    keys: Iterable[Key],
    present: Iterable[Key],
    what: str,
    where: str,
    places: Mapping[Key, str] | None = None,
) -> str:
    """Empty where all are present. `places`: where each key was read, to name the example's."""
    keys, present_keys = list(keys), set(present)
    missing = [key for key in keys if key not in present_keys]
    if not missing:
        return ""
    counts = f"{len(missing)} of {len(keys)} {what}"
    place = places.get(missing[0]) if places else ""
    example = _short(missing[0][0]) + (f" ({place})" if place else "")
    return f"{counts} {where}".rstrip() + f", for example {example}"


def _matched(path: Path, record: Record) -> MatchedOutput:
    return MatchedOutput(
        text_field(path, record, "output"),
        str(record.fields.get("generator") or "model"),
        record.fields.get("finish_reason") == "length",
    )


def _pair(
    prompt: Prompt, several: bool, output: tuple[Path, Record], baseline: tuple[Path, Record]
) -> Pair:
    baseline_fields = baseline[1].fields
    dataset = prompt.dataset or baseline_fields.get("dataset", output[1].fields.get("dataset"))
    return Pair(
        **vars(_matched(*output)),
        instruction=prompt.instruction,
        input=prompt.input,
        dataset=None if dataset is None else str(dataset),
        baseline=text_field(*baseline, "output"),
        baseline_generator=str(baseline_fields.get("generator") or "baseline"),
        set=prompt.dataset if several else None,
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")
