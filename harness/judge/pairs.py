"""What a judge compares, for each prompt the model's output and the baseline's; and the course that all
pairwise judging takes: ask once about each pair that differs, write what was said, count, and find how
far the place decides."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.answer.outputs import OUTPUTS
from harness.answer.prompts import Prompt, read_prompts
from harness.artefact.call import TRANSCRIPT, StageCall, StageResult
from harness.data.records import Record, read_records, text_field
from harness.errors import InputError
from harness.judge.judge import PairwiseJudge, Reference, RowOutputs, prompts_of, replicate_of
from harness.judge.scores import (
    describe,
    metrics_of_sets,
    position_findings,
    win_rate_metric,
    write_leaderboard,
)
from harness.spec.base import Sampling

if TYPE_CHECKING:
    from harness.llm.asking import ServedModels
    from harness.llm.client import Client
    from harness.llm.reply import Reply

ANNOTATIONS, LEADERBOARD, UNJUDGED = "annotations.json", "leaderboard.csv", "unjudged.jsonl"
KEPT_FILES = [ANNOTATIONS, LEADERBOARD, TRANSCRIPT, UNJUDGED]
"""What an artefact of a pairwise judge holds."""

Key = tuple[str, str]
"""An instruction and its input."""
_MATCHED = (
    "prompts, outputs and reference must be of one set; they are matched by instruction and input, "
    "letter by letter"
)


@dataclass(frozen=True)
class Pair:
    """One prompt with both outputs. `set`: which of several prompt sets it is of. `cut`: whether the
    model's output ended at the token limit."""

    instruction: str
    input: str
    dataset: str | None
    baseline: str
    baseline_generator: str
    output: str
    generator: str
    cut: bool
    set: str | None = None

    @property
    def key(self) -> Key:
        return self.instruction, self.input


def read_pairs(call: StageCall, reference: Reference) -> list[Pair]:
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
    outputs_file = Path(call.inputs["outputs"]) / OUTPUTS
    outputs = _by_key(outputs_file, places)
    reference_file = _reference_file(call, reference)
    baselines = _baselines(reference_file, places)
    faults = [
        _missing(places, outputs, "prompts have no output", f"in {outputs_file}"),
        _missing(outputs, places, f"outputs in {outputs_file} are for prompts that are not", ""),
        _missing(places, baselines, "prompts have no baseline output", f"in {reference_file}"),
    ]
    if any(faults):
        raise InputError(
            "\n".join(filter(None, faults)),
            hint=_MATCHED,
        )
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


def check_baselines(path: Path, prompts: Sequence[Prompt]) -> None:
    """Raises InputError where the reference file cannot be read or lacks an output for a prompt."""
    places = Counter(prompt.key for prompt in prompts)
    fault = _missing(
        places, _baselines(path, places), "prompts have no baseline output", f"in {path}"
    )
    if fault:
        raise InputError(fault, hint=_MATCHED)


@dataclass(frozen=True)
class MatchedOutput:
    """A model's output for a prompt, where nothing stands beside it."""

    output: str
    generator: str
    cut: bool


def read_outputs(
    call: StageCall, prompts: Sequence[Prompt], of_all: bool = True
) -> list[MatchedOutput]:
    """The model's output for each prompt, in their order, matched by instruction and input. `of_all`:
    whether there are no other prompts.

    Raises:
        InputError: as `read_pairs` does of the outputs.
    """
    places = Counter(prompt.key for prompt in prompts)
    path = Path(call.inputs["outputs"]) / OUTPUTS
    outputs = _by_key(path, places)
    faults = [_missing(places, outputs, "prompts have no output", f"in {path}")]
    if of_all:
        faults.append(
            _missing(outputs, places, f"outputs in {path} are for prompts that are not", "")
        )
    if any(faults):
        raise InputError(
            "\n".join(filter(None, faults)),
            hint="prompts and outputs must be of one set; they are matched by instruction and input, "
            "letter by letter",
        )
    return [
        MatchedOutput(
            text_field(path, outputs[prompt.key], "output"),
            str(outputs[prompt.key].fields.get("generator") or "model"),
            outputs[prompt.key].fields.get("finish_reason") == "length",
        )
        for prompt in prompts
    ]


def firsts(pairs: Sequence[Pair]) -> list[int]:
    """For each pair the number of the first that is the same: the one that is asked about."""
    first: dict[Key, int] = {}
    return [first.setdefault(pair.key, number) for number, pair in enumerate(pairs)]


def output_counts(pairs: Sequence[Pair]) -> dict[str, int]:
    """Counts of what was judged that a win rate does not show."""
    return {
        "prompts": len(pairs),
        "identical": sum(pair.output == pair.baseline for pair in pairs),
        "empty_outputs": sum(not pair.output.strip() for pair in pairs),
        "cut_outputs": sum(pair.cut for pair in pairs),
    }


def identical_notes(pairs: Sequence[Pair]) -> list[str]:
    """A note on the outputs that no judge was shown."""
    same = sum(pair.output == pair.baseline for pair in pairs)
    if not same:
        return []
    are = "is" if same == 1 else "are"
    return [f"{same} of {len(pairs)} outputs {are} the baseline's own: draws, not asked"]


def sampling_of(sampling: Sampling, replicate: int) -> dict[str, Any]:
    """A request's; a replicate asks with another seed than the ones before."""
    options = sampling.model_dump(exclude_none=True)
    if replicate > 0:
        options["seed"] = options.get("seed", 0) + replicate
    return options


@dataclass(frozen=True)
class JudgeReplies:
    """What a judge was asked with, and its replies: of each pair those to its requests, None for a pair
    that is not asked about, for its outputs are identical."""

    client: "Client"
    served: "ServedModels"
    replies: "list[tuple[Reply, ...] | None]"


def ask(
    call: StageCall,
    judge: PairwiseJudge,
    pairs: Sequence[Pair],
    bodies_of: Callable[[Pair], Sequence[dict[str, Any]]],
    is_read: "Callable[[Reply], bool]",
    unit: Literal["prompts", "gradings"],
) -> JudgeReplies:
    """Ask about each pair of different outputs, of those that are the same once.

    `bodies_of`: its requests, `judge.calls_per_prompt` in number. `unit`: what the progress counts;
    prompts are done too where nothing is asked.
    """
    # Imported here, for what is only checked beforehand asks nothing.
    from harness.artefact.events import Progress
    from harness.llm.asking import ServedModels, ask_until_read
    from harness.llm.client import open_client

    served = ServedModels(judge.on_model_change, call.folder)
    client = open_client(call, judge.judge, judge.transcript)
    first, times = firsts(pairs), judge.calls_per_prompt
    numbers = [i for i, p in enumerate(pairs) if first[i] == i and p.output != p.baseline]
    bodies = [body for number in numbers for body in bodies_of(pairs[number])]
    done, unread = len(pairs) - len(numbers) if unit == "prompts" else 0, 0
    progress = Progress("judge", done + len(bodies), unit)
    unread_name = "unjudged" if unit == "prompts" else "unread"

    def count(index: int, reply: "Reply") -> None:
        nonlocal done, unread
        done += 1
        unread += not is_read(reply)
        progress.show(done, **{unread_name: unread})

    async def ask_all() -> "list[Reply]":
        async with client:
            return await ask_until_read(
                client, bodies, lambda r: is_read(r) or None, judge.asks, count, served=served
            )

    replies = asyncio.run(ask_all())
    of_pair = {
        number: tuple(replies[times * at : times * (at + 1)]) for at, number in enumerate(numbers)
    }
    return JudgeReplies(client, served, [of_pair.get(number) for number in first])


def annotation(pair: Pair, annotator: str, dataset_first: bool) -> dict[str, Any]:
    """What a row of annotations.json says beside the judgement, in alpaca_eval's fields."""
    dataset = {"dataset": pair.dataset}
    return {
        "instruction": pair.instruction,
        **({"input": pair.input} if pair.input else {}),
        **(dataset if dataset_first else {}),
        "output_1": pair.baseline,
        "generator_1": pair.baseline_generator,
        **dataset,
        "output_2": pair.output,
        "generator_2": pair.generator,
        "annotator": annotator,
    }


def prompt_fields(row: dict[str, Any]) -> dict[str, Any]:
    """Of a row of annotations.json, what names its prompt."""
    return {name: row[name] for name in ("instruction", "input") if name in row}


def unread_reply(reply: "Reply", text: str) -> dict[str, Any]:
    """What unjudged.jsonl says of a reply beside its prompt."""
    why = {"why": reply.why} if reply.is_declined else {}
    return {"reply": text, "finish_reason": reply.finish_reason, **why}


def write_judgements(call: StageCall, pairs: Sequence[Pair], rows: list[dict[str, Any]]) -> None:
    """annotations.json, and leaderboard.csv from it."""
    (call.folder / ANNOTATIONS).write_text(json.dumps(rows, indent=2) + "\n", encoding="ascii")
    described = describe([row["preference"] for row in rows])
    outputs = [pair.output for pair in pairs]
    write_leaderboard(call.folder / LEADERBOARD, pairs[0].generator, outputs, described)


def pairwise_result(
    call: StageCall,
    client: "Client",
    served: "ServedModels",
    pairs: Sequence[Pair],
    preferences: Sequence[float | None],
    described: dict[str, Any],
    unjudged: int,
    bias: dict[str, Any],
    bias_notes: Sequence[str],
) -> StageResult:
    """What every pairwise judge gives: win rates, counts, position bias and who answered.
    `described`: the preferences' figures."""
    win_rate = win_rate_metric(described, len(pairs))
    return StageResult(
        keep=[*KEPT_FILES],
        metrics={"win_rate": win_rate, **metrics_of_sets([p.set for p in pairs], preferences)},
        counts={
            **output_counts(pairs),
            "judged": described["n_total"],
            "unjudged": unjudged,
        },
        used={"served_models": sorted(served.counts), "position_bias": bias},
        seeds={"replicate": replicate_of(call)},
        cost=client.cost(),
        simulated=["judge"] if client.simulated else [],
        notes=[*served.notes(), *identical_notes(pairs), *bias_notes],
        findings=[*served.findings(), *position_findings(bias)],
    )


def ask_again(work: Path) -> str:
    """The way out where no reply is of use: the transcript would give the same ones again."""
    return (
        "The same command finds the same replies in the transcript: change the judge in the spec, "
        f"or remove the work folder {work} to ask again"
    )


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """JSON lines, in ASCII: any text a model makes can be written and read back."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")


def _reference_file(call: StageCall, reference: Reference) -> Path:
    if isinstance(reference, RowOutputs):
        if "baseline" not in call.inputs:
            raise InputError("the stage was not given the outputs of the row that is the reference")
        return Path(call.inputs["baseline"]) / OUTPUTS
    return Path(reference.path)


def _by_key(path: Path, places: Counter[Key]) -> dict[Key, Record]:
    """The model's outputs. One may stand as often as its prompt does, with the same text."""
    keyed = [
        ((text_field(path, record, "instruction"), _input(path, record)), record)
        for record in read_records(path)
    ]
    return _each_once(path, keyed, places)


def _baselines(path: Path, places: Counter[Key]) -> dict[Key, Record]:
    """The reference's outputs for these prompts; it may have others."""
    records = read_records(path)
    if any(_input(path, record) for record in records):
        prompts_of_key = {key: [key] for key in places}
        keys = [
            (text_field(path, record, "instruction"), _input(path, record)) for record in records
        ]
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


def _missing(keys: Iterable[Key], present: Iterable[Key], what: str, where: str) -> str:
    keys, present_keys = list(keys), set(present)
    missing = [key for key in keys if key not in present_keys]
    if not missing:
        return ""
    counts = f"{len(missing)} of {len(keys)} {what}"
    return f"{counts} {where}".rstrip() + f", for example {_short(missing[0][0])}"


def _pair(
    prompt: Prompt, several: bool, output: tuple[Path, Record], baseline: tuple[Path, Record]
) -> Pair:
    output_fields, baseline_fields = output[1].fields, baseline[1].fields
    dataset = prompt.dataset or baseline_fields.get("dataset", output_fields.get("dataset"))
    return Pair(
        instruction=prompt.instruction,
        input=prompt.input,
        dataset=None if dataset is None else str(dataset),
        baseline=text_field(*baseline, "output"),
        baseline_generator=str(baseline_fields.get("generator") or "baseline"),
        output=text_field(*output, "output"),
        generator=str(output_fields.get("generator") or "model"),
        cut=output_fields.get("finish_reason") == "length",
        set=prompt.dataset if several else None,
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")
