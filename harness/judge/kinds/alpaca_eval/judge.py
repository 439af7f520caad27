"""The alpaca-eval package as the judge, its calls made by the harness's client.

Its annotations.json and leaderboard.csv are kept as it writes them, without the two columns that say
when and how fast (the transcript does, and a replay has no such times of its own). The metrics are
read from them and computed again for comparison. A replicate is the package's own `seed`, which draws
the order of the outputs, and the same number as the requests' `seed`.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

from harness.artefact.call import StageCall, StageResult
from harness.artefact.events import Progress
from harness.errors import HarnessError, InputError
from harness.judge.judge import replicate_of
from harness.judge.kinds.alpaca_eval import AlpacaEvalJudge, length_control
from harness.judge.kinds.alpaca_eval.annotators import (
    AnnotatorConfig,
    Choices,
    Read,
    deviations,
    has_log_probs,
    needs_log_probs,
    read_annotators,
)
from harness.judge.kinds.alpaca_eval.chat import broken_findings, broken_pairs
from harness.judge.kinds.alpaca_eval.readings import shows_model_first
from harness.judge.pairs import Pair, read_pairs
from harness.judge.pairwise import (
    ANNOTATIONS,
    LEADERBOARD,
    UNJUDGED,
    Annotation,
    UnreadReply,
    account_of,
    nothing_judged,
    order_bias,
    pairwise_result,
    unread_reply,
    write_rows,
)
from harness.judge.scores import (
    BASELINE,
    DRAW,
    MODEL,
    Figures,
    describe,
    differences,
    is_judgement,
    position_notes,
    read_leaderboard,
)
from harness.llm.asking import ServedModels, ask_until_read
from harness.llm.body import Body
from harness.llm.client import Client, open_client
from harness.llm.reply import Kind, Reply

TOLERANCE = 1e-9
"""Between the package's figures, in percent, and ours from the same annotations."""
ROUNDED_TOLERANCE = 1e-7
"""The same where preferences are probabilities, of which annotations.json keeps ten decimals."""
CHUNK = 128
"""Prompts that the package works on at a time. Annotators that are shown several prompts at once get
other companies of prompts in other chunks."""
REPLIES_WITHOUT = 20
"""So many first replies without log-probs, and not one with them: there will be none."""
KEPT_COLUMNS = tuple(
    "{annotation_key}_" + name for name in ("price_per_example", "version", "raw_completion")
)


class _Watch(ServedModels):
    """Counts replies without the log-probs that an annotator computes preferences from, too."""

    def __init__(self, judge: AlpacaEvalJudge, work: Path, needs_log_probs: bool) -> None:
        super().__init__(judge.on_model_change, work)
        self.judge, self.needs_log_probs = judge, needs_log_probs
        self.with_log_probs = self.without_log_probs = 0

    def note(self, reply: Reply) -> None:
        super().note(reply)
        if self.needs_log_probs and not reply.is_declined:
            if all(map(has_log_probs, reply.raw["choices"])):
                self.with_log_probs += 1
            else:
                self.without_log_probs += 1
                if self.without_log_probs == REPLIES_WITHOUT:
                    self.check()

    def check(self) -> None:
        """Raises HarnessError where no reply had log-probs."""
        if self.without_log_probs and not self.with_log_probs:
            raise HarnessError(
                f"none of {self.without_log_probs} replies of {self.judge.judge.model} holds "
                f"log-probs (logprobs.content with top_logprobs), from which alpaca_eval's annotator "
                f"{self.judge.annotator} computes its preferences",
                hint="ask a server that gives them, or choose an annotator that reads the reply's "
                "text, such as chatgpt or alpaca_eval_gpt4",
            )

    def notes(self) -> list[str]:
        notes = super().notes()
        if self.without_log_probs:
            replies = self.with_log_probs + self.without_log_probs
            notes.append(f"{self.without_log_probs} of {replies} replies came without log-probs")
        return notes


def run(call: StageCall, judge: AlpacaEvalJudge) -> StageResult:
    """Have the package judge the outputs, in the call's work folder; raises as `BaseJudge.run`."""
    pairs, replicate = read_pairs(call, judge), replicate_of(call)
    _check(pairs)
    if judge.length_control is not None:
        length_control.check(_length_files(call, judge), [pair.instruction for pair in pairs])
    # Imported here, for it takes seconds.
    from harness.judge.kinds.alpaca_eval import package

    configs = read_annotators(package.CONFIGURATIONS, judge.annotator)
    watch = _Watch(judge, call.folder, needs_log_probs(configs))
    choices: Choices = {}
    client = open_client(call, judge.judge, judge.transcript)
    try:
        asyncio.run(_judge(call, judge, client, watch, configs, pairs, choices))
        # Draws of identical outputs are judgements too.
        watch.check()
    except HarnessError:
        raise
    except _NoJudgement:
        watch.check()
        raise _nothing_judged(call, pairs, choices) from None
    except Exception as e:
        raise HarnessError(
            f"alpaca-eval failed: {type(e).__name__}: {e}",
            hint="its log is above. No answered call is lost: the same command goes on from there",
        ) from e

    rows: list[Annotation] = json.loads((call.folder / ANNOTATIONS).read_text(encoding="utf-8"))
    unjudged = _unjudged([row["instruction"] for row in rows if _preference(row) is None], choices)
    write_rows(call.folder / UNJUDGED, unjudged)
    figures = _checked(call.folder, rows, pairs, len(unjudged))
    by_instruction = {row["instruction"]: _preference(row) for row in rows}
    preferences = [by_instruction.get(pair.instruction) for pair in pairs]
    shown_first = [shows_model_first(judge.annotator, p.instruction, replicate) for p in pairs]
    bias = order_bias(pairs, shown_first, preferences)
    account = account_of(client, watch)
    result = pairwise_result(
        call, account, pairs, preferences, figures, len(unjudged), bias, position_notes(bias)
    )
    if judge.length_control is not None:
        result.metrics["length_controlled_win_rate"] = length_control.metric(
            _length_files(call, judge), rows, len(pairs)
        )
    result.counts["special_tokens"] = len(broken_pairs(pairs))
    if watch.needs_log_probs:
        result.counts["without_log_probs"] = watch.without_log_probs
    result.used["alpaca_eval"] = version("alpaca-eval")
    result.deviations = deviations(judge.annotator, configs, judge.judge)
    result.findings += broken_findings(pairs, {row["instruction"] for row in unjudged})
    return result


def _length_files(call: StageCall, judge: AlpacaEvalJudge) -> Path:
    assert judge.length_control is not None
    folder = judge.length_control.folder
    return Path(call.inputs["length_control"] if folder is None else folder.path)


def _check(pairs: list[Pair]) -> None:
    with_input = [pair for pair in pairs if pair.input]
    if with_input:
        raise InputError(
            f"{len(with_input)} of {len(pairs)} prompts have an input, which alpaca_eval's "
            "annotators do not show to the judge",
            hint="put the input into the instruction, or use the judge of kind preference",
        )
    twice = len(pairs) - len({pair.instruction for pair in pairs})
    if twice:
        raise InputError(
            f"{twice} of {len(pairs)} prompts are there twice, and alpaca_eval tells prompts apart by "
            "their instruction",
            hint="give each prompt only once, or use the judge of kind preference",
        )


async def _judge(
    call: StageCall,
    judge: AlpacaEvalJudge,
    client: Client,
    watch: _Watch,
    configs: dict[str, AnnotatorConfig],
    pairs: list[Pair],
    choices: Choices,
) -> None:
    """Run the package in a thread, and its calls in this one, where interrupts are handled."""
    from harness.judge.kinds.alpaca_eval import package

    loop, replicate = asyncio.get_running_loop(), replicate_of(call)
    done, total = 0, sum(not pair.is_identical for pair in pairs)
    progress = Progress("judge", total, "prompts")

    def ask(bodies: Sequence[Body], kind: Kind, read_reply: Read) -> list[Reply]:
        def count(index: int, reply: Reply) -> None:
            nonlocal done
            done += 1
            progress.show(min(done, total))

        replies = ask_until_read(client, bodies, read_reply, judge.asks, count, kind, watch)
        return asyncio.run_coroutine_threadsafe(replies, loop).result()

    asking = package.Asking(judge.judge.model, ask, replicate, choices)
    by_chunks = any((config.get("batch_size") or 1) > 1 for config in configs.values())

    def work_of_the_package() -> None:
        # Handed over as data, not as files: reading files the package would turn outputs such as
        # "007" into numbers. Without a cache, as the transcript is one; in it, unread replies stay
        # unread.
        package.evaluate(
            model_outputs=[_row(p, p.output, p.generator) for p in pairs],
            reference_outputs=[_row(p, p.baseline, p.baseline_generator) for p in pairs],
            annotators_config=f"{judge.annotator}/configs.yaml",
            Annotator=partial(package.Annotator, asking),
            name=pairs[0].generator,
            output_path=call.work,
            precomputed_leaderboard=None,
            is_cache_leaderboard=False,
            is_return_instead_of_print=True,
            fn_metric=_win_rate,
            sort_by="win_rate",
            annotation_kwargs={"chunksize": CHUNK if by_chunks else None},
            caching_path=None,
            seed=replicate,
            other_output_keys_to_keep=KEPT_COLUMNS,
        )

    async with client:
        await asyncio.to_thread(work_of_the_package)


def _row(pair: Pair, output: str, generator: str) -> dict[str, str | None]:
    row = {"instruction": pair.instruction, "output": output, "generator": generator}
    return {**row, "dataset": pair.dataset}


class _NoJudgement(Exception):
    """Not one reply could be read."""


def _win_rate(annotations: list[Annotation]) -> object:
    from harness.judge.kinds.alpaca_eval.package import get_winrate

    # Without a single one the package's own function ends in a TypeError.
    if not any(is_judgement(row["preference"]) for row in annotations):
        raise _NoJudgement
    return get_winrate(annotations)


def _preference(row: Annotation) -> float | None:
    return row["preference"] if is_judgement(row["preference"]) else None


def _checked(work: Path, rows: list[Annotation], pairs: list[Pair], unjudged: int) -> Figures:
    """The leaderboard's figures, which must be those of the annotations."""
    described = describe([row["preference"] for row in rows])
    leaderboard = read_leaderboard(work / LEADERBOARD, pairs[0].generator)
    is_exact = all(row["preference"] in (None, BASELINE, DRAW, MODEL) for row in rows)
    differing = differences(described, leaderboard, TOLERANCE if is_exact else ROUNDED_TOLERANCE)
    if differing or described["n_total"] + unjudged != len(pairs):
        raise HarnessError(
            "alpaca_eval's leaderboard and its annotations do not say the same: "
            + ("; ".join(differing) or f"{len(rows)} annotations of {len(pairs)} prompts"),
            hint=f"see {work / LEADERBOARD} and {work / ANNOTATIONS}",
        )
    return leaderboard


def _unjudged(instructions: Iterable[str], choices: Choices) -> list[UnreadReply]:
    """What was said of these instructions: the package throws away what it cannot read."""
    rows: list[UnreadReply] = []
    for instruction in instructions:
        choice, reply = choices[instruction]
        # A choice's text is a function's arguments where the reply is a call of one.
        text = reply.text or choice["text"].strip()
        rows.append(unread_reply((instruction, ""), reply, text))
    return rows


def _nothing_judged(call: StageCall, pairs: list[Pair], choices: Choices) -> HarnessError:
    unjudged = _unjudged([p.instruction for p in pairs if p.instruction in choices], choices)
    write_rows(call.folder / UNJUDGED, unjudged)
    return nothing_judged(
        call,
        f"alpaca_eval could read none of the judge's {len(unjudged)} replies; the first",
        "does the judge follow this annotator's prompt?",
        choices[unjudged[0]["instruction"]][1].why or unjudged[0]["reply"],
    )
