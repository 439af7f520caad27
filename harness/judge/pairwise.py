"""The course of all pairwise judging: ask once about each pair that differs, write what was said, count
and find how far the place decides. Judges of single outputs share its files and errors."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Generic, Literal, NotRequired, TypedDict, TypeVar, cast

from harness.answer.prompts import once
from harness.artefact.call import TRANSCRIPT, Account, StageCall, StageResult
from harness.artefact.events import Progress
from harness.errors import HarnessError
from harness.judge.judge import PairwiseJudge, replicate_of
from harness.judge.pairs import Key, MatchedOutput, Pair, read_pairs
from harness.judge.scores import (
    Figures,
    PositionBias,
    describe,
    metrics_of_sets,
    position_bias,
    position_findings,
    position_notes,
    win_rate_metric,
    write_leaderboard,
)
from harness.llm.asking import ServedModels, ask_until_read
from harness.llm.body import ChatBody, RequestOptions
from harness.llm.client import Client, open_client
from harness.llm.reply import Reply
from harness.spec.base import Sampling

ANNOTATIONS, LEADERBOARD, UNJUDGED = "annotations.json", "leaderboard.csv", "unjudged.jsonl"


class PromptFields(TypedDict):
    """What names a prompt in the files of an artefact."""

    instruction: str
    input: NotRequired[str]


class PairFields(PromptFields):
    """What a row of annotations.json says beside the judgement, in alpaca_eval's fields."""

    dataset: str | None
    output_1: str
    generator_1: str
    output_2: str
    generator_2: str
    annotator: str


class Annotation(PairFields):
    """A row of annotations.json."""

    preference: float | None


class UnreadReply(PromptFields):
    """A line of unjudged.jsonl, where one reply is all."""

    reply: str
    finish_reason: str | None


class DeclinedReply(UnreadReply):
    """The same where the server declined the prompt."""

    why: str | None


Row = TypeVar("Row", bound=Annotation)
Bias = TypeVar("Bias", bound=PositionBias)
Replies = tuple[Reply, ...]
"""To the requests about one pair."""


class PairAsker(ABC, Generic[Row, Bias]):
    """How a kind of judge asks about a pair, and what it makes of the replies."""

    unit: ClassVar[Literal["prompts", "gradings"]] = "prompts"
    """What the progress counts."""

    @abstractmethod
    def requests(self, pair: Pair) -> Sequence[ChatBody]:
        """`calls_per_prompt` of the judge's in number."""

    @abstractmethod
    def is_read(self, reply: Reply) -> bool: ...

    @abstractmethod
    def annotate(self, pair: Pair, replies: Replies | None) -> Row:
        """Without replies: of identical outputs, which are a draw."""

    @abstractmethod
    def unjudged(self, pair: Pair, replies: Replies) -> Mapping[str, object]:
        """The line of unjudged.jsonl."""

    @abstractmethod
    def nothing_read(self, pairs: int) -> tuple[str, str]:
        """(What no reply said, what to ask oneself about the prompt)."""

    @abstractmethod
    def position_bias(self, pairs: Sequence[Pair], rows: Sequence[Row]) -> Bias: ...

    def bias_notes(self, bias: Bias) -> list[str]:
        return position_notes(bias)


def judge_pairs(
    call: StageCall, judge: PairwiseJudge, asker: PairAsker[Row, Bias]
) -> tuple[StageResult, list[Row]]:
    """The result, and the rows of annotations.json.

    Raises:
        InputError: outputs and baseline do not fit the prompts, or the judge cannot be asked.
        HarnessError: a call failed for good, or no prompt could be judged.
    """
    pairs = read_pairs(call, judge)
    served = ServedModels(judge.on_model_change, call.folder)
    client = open_client(call, judge.judge, judge.transcript)
    replies = _ask(client, served, judge, pairs, asker)
    rows = [asker.annotate(*parts) for parts in zip(pairs, replies, strict=True)]
    unjudged = [
        asker.unjudged(pair, pair_replies)
        for pair, row, pair_replies in zip(pairs, rows, replies, strict=True)
        if pair_replies is not None and row["preference"] is None
    ]
    write_rows(call.folder / UNJUDGED, unjudged)
    preferences = [row["preference"] for row in rows]
    figures = describe(preferences)
    if figures["n_total"] == 0:
        first = next(pair_replies for pair_replies in replies if pair_replies)[0]
        raise nothing_judged(call, *asker.nothing_read(len(pairs)), first.why or first.text)
    write_annotations(call, rows)
    outputs = [pair.output for pair in pairs]
    write_leaderboard(call.folder / LEADERBOARD, pairs[0].generator, outputs, figures)
    bias = asker.position_bias(pairs, rows)
    account, notes = account_of(client, served), asker.bias_notes(bias)
    result = pairwise_result(call, account, pairs, preferences, figures, len(unjudged), bias, notes)
    return result, rows


def pairwise_result(
    call: StageCall,
    account: Account,
    pairs: Sequence[Pair],
    preferences: Sequence[float | None],
    figures: Figures,
    unjudged: int,
    bias: PositionBias,
    bias_notes: Sequence[str],
) -> StageResult:
    """What every pairwise judge gives: win rates, counts, position bias and who answered (`account`).
    `figures`: the preferences'."""
    identical = sum(pair.is_identical for pair in pairs)
    result = StageResult(
        keep=[ANNOTATIONS, LEADERBOARD, UNJUDGED],
        metrics={
            "win_rate": win_rate_metric(figures, len(pairs)),
            **metrics_of_sets([pair.set for pair in pairs], preferences),
        },
        counts={
            "prompts": len(pairs),
            "identical": identical,
            **output_counts(pairs),
            "judged": figures["n_total"],
            "unjudged": unjudged,
        },
        used={"position_bias": bias},
        seeds={"replicate": replicate_of(call)},
    )
    result.add(account)
    if identical:
        are = "is" if identical == 1 else "are"
        result.notes.append(
            f"{identical} of {len(pairs)} outputs {are} the baseline's own: draws, not asked"
        )
    result.notes += bias_notes
    result.findings += position_findings(bias)
    return result


def _ask(
    client: Client,
    served: ServedModels,
    judge: PairwiseJudge,
    pairs: Sequence[Pair],
    asker: PairAsker[Row, Bias],
) -> list[Replies | None]:
    """Of each pair the replies, None where its outputs are identical; of pairs that are the same one
    is asked about."""
    first = once(pair.key for pair in pairs)
    numbers = [i for i, p in enumerate(pairs) if first[i] == i and not p.is_identical]
    bodies = [body for number in numbers for body in asker.requests(pairs[number])]
    # Prompts are done too where nothing is asked; gradings are not.
    done = len(pairs) - len(numbers) if asker.unit == "prompts" else 0
    unread = "unjudged" if asker.unit == "prompts" else "unread"
    replies = ask_all(client, served, bodies, asker.is_read, judge.asks, asker.unit, unread, done)
    times = judge.calls_per_prompt
    of_pair = {
        number: tuple(replies[times * at : times * (at + 1)]) for at, number in enumerate(numbers)
    }
    return [of_pair.get(number) for number in first]


def ask_all(
    client: Client,
    served: ServedModels,
    bodies: Sequence[ChatBody],
    is_read: Callable[[Reply], bool],
    asks: int,
    unit: str,
    unread_name: str,
    done: int = 0,
) -> list[Reply]:
    """The replies to `bodies`, asked until they are read or `asks` times. The progress is in `unit`, of
    which so many are `done` without being asked; `unread_name`: what it calls the unread ones."""
    progress, unread = Progress("judge", done + len(bodies), unit), 0

    def count(index: int, reply: Reply) -> None:
        nonlocal done, unread
        done += 1
        unread += not is_read(reply)
        progress.show(done, **{unread_name: unread})

    async def ask() -> list[Reply]:
        async with client:
            return await ask_until_read(
                client, bodies, lambda reply: is_read(reply) or None, asks, count, served=served
            )

    return asyncio.run(ask())


def account_of(client: Client, served: ServedModels) -> Account:
    """Of the judge that was asked."""
    return Account(
        keep=[TRANSCRIPT],
        used={"served_models": sorted(served.counts)},
        cost=client.cost(),
        simulated=["judge"] if client.simulated else [],
        notes=served.notes(),
        findings=served.findings(),
    )


def order_bias(
    pairs: Sequence[Pair], shown_first: Iterable[bool], preferences: Iterable[float | None]
) -> PositionBias:
    """Where each prompt is shown in one order; `shown_first`: whether with the model's output first."""
    return position_bias(
        (is_first, preference)
        for pair, is_first, preference in zip(pairs, shown_first, preferences, strict=True)
        if not pair.is_identical
    )


def output_counts(outputs: Sequence[MatchedOutput]) -> dict[str, int]:
    """Counts of what was judged that a score does not show."""
    return {
        "empty_outputs": sum(not output.output.strip() for output in outputs),
        "cut_outputs": sum(output.cut for output in outputs),
    }


def sampling_of(sampling: Sampling, replicate: int) -> RequestOptions:
    """A request's; a replicate asks with another seed than the ones before."""
    options = cast("RequestOptions", sampling.model_dump(exclude_none=True))
    if replicate > 0:
        options["seed"] = options.get("seed", 0) + replicate
    return options


def prompt_fields(key: Key) -> PromptFields:
    instruction, prompt_input = key
    if prompt_input:
        return {"instruction": instruction, "input": prompt_input}
    return {"instruction": instruction}


def pair_fields(pair: Pair, annotator: str) -> PairFields:
    return {
        **prompt_fields(pair.key),
        "output_1": pair.baseline,
        "generator_1": pair.baseline_generator,
        "dataset": pair.dataset,
        "output_2": pair.output,
        "generator_2": pair.generator,
        "annotator": annotator,
    }


def unread_reply(key: Key, reply: Reply, text: str) -> UnreadReply | DeclinedReply:
    row: UnreadReply = {
        **prompt_fields(key),
        "reply": text,
        "finish_reason": reply.finish_reason,
    }
    return {**row, "why": reply.why} if reply.is_declined else row


def nothing_judged(
    call: StageCall, problem: str, question: str, reply: str, kept: str = "the transcript"
) -> HarnessError:
    """The error where no reply is of use. `kept`: what would give the same ones again."""
    return HarnessError(
        f"{problem} is {reply[:200]!r}",
        hint=f"see {call.folder / UNJUDGED}; {question} The same command finds the same replies in "
        f"{kept}: change the judge in the spec, or remove the work folder {call.folder} to ask again",
    )


def write_annotations(call: StageCall, rows: Sequence[Mapping[str, object]]) -> None:
    (call.folder / ANNOTATIONS).write_text(json.dumps(rows, indent=2) + "\n", encoding="ascii")


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """JSON lines, in ASCII: any text a model makes can be written and read back."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")
