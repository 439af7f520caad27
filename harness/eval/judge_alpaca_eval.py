"""The alpaca-eval package as the judge, its calls passing through the harness's recorder.

The package reads the annotator's configuration and prompt as it ships them; only the model's name
and the address are the spec's. Its annotations.json and leaderboard.csv are kept as it writes them,
and the metrics are read from them and computed again for comparison. A replicate is the package's
own `seed`, which draws the order of the outputs, and the same number as the requests' `seed`.
"""

import contextlib
import difflib
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from harness.call import StageCall, StageResult
from harness.errors import HarnessError, InputError
from harness.eval.judge_pairs import (
    ANNOTATIONS,
    KEPT_FILES,
    LEADERBOARD,
    TRANSCRIPT,
    UNJUDGED,
    Pair,
    ask_again,
    output_counts,
    served_notes,
    write_rows,
)
from harness.eval.judge_scores import (
    BASELINE,
    DRAW,
    MODEL,
    describe,
    differences,
    is_judgement,
    read_leaderboard,
    win_rate_metric,
)
from harness.llm.progress import Progress
from harness.llm.recorder import DUMMY_KEY, Recorder
from harness.llm.reply import Reply, reply_from
from harness.spec.models import AlpacaEvalJudge

TOLERANCE = 1e-9
"""Between the package's figures, in percent, and ours from the same annotations."""
ROUNDED_TOLERANCE = 1e-7
"""The same where preferences are probabilities, of which annotations.json keeps ten decimals."""
ANNOTATOR, CLIENT = "annotator", "client.yaml"

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TQDM_DISABLE": "1",
}


def run(call: StageCall, judge: AlpacaEvalJudge, pairs: list[Pair], replicate: int) -> StageResult:
    """Have the package judge the pairs, in the call's work folder."""
    _check_inputs(pairs)
    _go_offline()
    evaluate = _import_evaluate()
    config = _read_annotator(judge.annotator)
    batch = config.get("batch_size", 1)
    progress = Progress("judge", -(-sum(p.output != p.baseline for p in pairs) // batch), "calls")
    answered = 0

    def count(reply: Reply) -> None:
        nonlocal answered
        answered += 1
        progress.show(answered)

    with Recorder(
        judge.judge, call.folder / TRANSCRIPT, call.budget, count, call.price
    ) as recorder:
        _write_client(call.folder / CLIENT, recorder.base_url)
        _write_annotator(call.folder / ANNOTATOR, judge, config, replicate)
        try:
            with _one_client():
                _evaluate(evaluate, call.folder, judge, pairs, replicate)
        except Exception as e:
            raise recorder.error or _package_failed(e, call.folder, pairs) from None
    if recorder.error is not None:
        raise recorder.error
    described, unjudged = _read_results(call.folder, pairs)
    client = recorder.client
    return StageResult(
        keep=KEPT_FILES,
        metrics={"win_rate": win_rate_metric(described, len(pairs))},
        counts={
            **output_counts(pairs),
            "judged": described["n_total"],
            "unjudged": len(unjudged),
        },
        used={"served_models": client.served_models, "alpaca_eval": version("alpaca-eval")},
        seeds={"replicate": replicate},
        cost=client.cost(),
        simulated=["judge"] if client.simulated else [],
        notes=served_notes(client.served_models),
    )


def _check_inputs(pairs: list[Pair]) -> None:
    with_input = [pair for pair in pairs if pair.input]
    if with_input:
        raise InputError(
            f"{len(with_input)} of {len(pairs)} prompts have an input, which alpaca_eval's "
            "annotators do not show to the judge",
            hint="put the input into the instruction, or use the judge of kind preference",
        )


def _go_offline() -> None:
    os.environ.update(OFFLINE)
    # The recorder is on loopback, whatever proxy the machine has for the rest.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))


def _import_evaluate() -> Callable[..., Any]:
    root = logging.getLogger()
    level = root.level
    from alpaca_eval.main import evaluate

    # Importing it turns the root logger to INFO: a line of log for every request.
    root.setLevel(level)
    result: Callable[..., Any] = evaluate
    return result


def _read_annotator(name: str) -> dict[str, Any]:
    """The package's configuration of one annotator.

    Raises:
        InputError: there is none of this name, or not one that calls a single OpenAI model.
    """
    from alpaca_eval.constants import EVALUATORS_CONFIG_DIR as folder

    names = sorted(path.parent.name for path in folder.glob("*/configs.yaml"))
    if name not in names:
        near = difflib.get_close_matches(name, names, 3) or names
        raise InputError(f"alpaca_eval has no annotator {name!r}", hint=f"it has {', '.join(near)}")
    configs = yaml.safe_load((folder / name / "configs.yaml").read_text(encoding="utf-8"))
    config: dict[str, Any] = next(iter(configs.values()))
    if len(configs) > 1 or config["fn_completions"] != "openai_completions":
        raise InputError(
            f"alpaca_eval's annotator {name!r} does not ask one OpenAI-compatible model",
            hint="choose one that does, such as chatgpt or alpaca_eval_gpt4",
        )
    return config


def _write_annotator(
    folder: Path, judge: AlpacaEvalJudge, config: dict[str, Any], replicate: int
) -> None:
    """The annotator with another model's name, and its prompt byte by byte."""
    from alpaca_eval.constants import EVALUATORS_CONFIG_DIR
    from alpaca_eval.decoders.openai import _get_price_per_token, _requires_chatml

    folder.mkdir(exist_ok=True)
    shutil.copyfile(EVALUATORS_CONFIG_DIR / config["prompt_template"], folder / "prompt.txt")
    options = config.get("completions_kwargs", {})
    options = {
        # The package tells a chat model by its name, which is another one now.
        "requires_chatml": _requires_chatml(options["model_name"]),
        # Looked up here, for it warns each time that it does not know the model.
        "price_per_token": _get_price_per_token(judge.judge.model),
        **options,
        "model_name": judge.judge.model,
        "num_procs": judge.judge.concurrency,
        "client_config_path": str(folder.parent / CLIENT),
        **({"seed": replicate} if replicate else {}),
    }
    changed = config | {
        "prompt_template": f"{folder.name}/prompt.txt",
        "completions_kwargs": options,
    }
    text = yaml.safe_dump({judge.annotator: changed}, sort_keys=False)
    (folder / "configs.yaml").write_text(text, encoding="utf-8")


def _write_client(path: Path, base_url: str) -> None:
    # Retries and time limits are the recorder's; a second request for a slow one would be paid for.
    settings = {"api_key": DUMMY_KEY, "base_url": base_url, "max_retries": 0, "timeout": 86400.0}
    path.write_text(yaml.safe_dump({"default": [settings]}), encoding="utf-8")


@contextlib.contextmanager
def _one_client() -> Iterator[None]:
    """Let the package make its OpenAI client once: for each request anew, as it does, takes ten
    times the processor time of the request itself."""
    from alpaca_eval import utils

    make, lock = utils.get_all_clients, threading.Lock()
    made: list[Any] = []

    def get_all_clients(*args: Any, **kwargs: Any) -> list[Any]:
        with lock:
            if not made:
                made.extend(make(*args, **kwargs))
        return made

    utils.get_all_clients = get_all_clients
    try:
        yield
    finally:
        utils.get_all_clients = make
        for client in made:
            client.close()


def _evaluate(
    evaluate: Callable[..., Any],
    work: Path,
    judge: AlpacaEvalJudge,
    pairs: list[Pair],
    replicate: int,
) -> None:
    from alpaca_eval import metrics

    def metric(annotations: list[dict[str, Any]]) -> Any:
        # Without a single one the package's own function ends in a TypeError.
        if not any(is_judgement(row["preference"]) for row in annotations):
            raise _NoJudgement
        return getattr(metrics, judge.metric)(annotations)

    # Handed over as data, not as files: reading files the package would turn outputs such as "007"
    # into numbers. Without a cache, as the transcript is one; in it, unread replies stay unread.
    evaluate(
        model_outputs=[_row(p, p.output, p.generator) for p in pairs],
        reference_outputs=[_row(p, p.baseline, p.baseline_generator) for p in pairs],
        annotators_config=str(work / ANNOTATOR),
        name=pairs[0].generator,
        output_path=str(work),
        precomputed_leaderboard=None,
        is_cache_leaderboard=False,
        is_return_instead_of_print=True,
        fn_metric=metric,
        sort_by="win_rate",
        caching_path=None,
        seed=replicate,
    )


def _row(pair: Pair, output: str, generator: str) -> dict[str, Any]:
    return {
        "instruction": pair.instruction,
        "output": output,
        "generator": generator,
        "dataset": pair.dataset,
    }


def _read_results(work: Path, pairs: list[Pair]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The leaderboard's figures, checked against the annotations, and the unjudged prompts."""
    rows = json.loads((work / ANNOTATIONS).read_text(encoding="utf-8"))
    ours = describe([row["preference"] for row in rows])
    judged = {row["instruction"] for row in rows if is_judgement(row["preference"])}
    unjudged = _find_replies(
        work / TRANSCRIPT, [pair for pair in pairs if pair.instruction not in judged]
    )
    write_rows(work / UNJUDGED, unjudged)
    theirs = read_leaderboard(work / LEADERBOARD, pairs[0].generator)
    is_exact = all(row["preference"] in (None, BASELINE, DRAW, MODEL) for row in rows)
    differing = differences(ours, theirs, TOLERANCE if is_exact else ROUNDED_TOLERANCE)
    if differing or ours["n_total"] + len(unjudged) != len(pairs):
        raise HarnessError(
            "alpaca_eval's leaderboard and its annotations do not say the same: "
            + ("; ".join(differing) or f"{len(rows)} annotations of {len(pairs)} prompts"),
            hint=f"see {work / LEADERBOARD} and {work / ANNOTATIONS}",
        )
    return theirs, unjudged


def _find_replies(transcript: Path, pairs: list[Pair]) -> list[dict[str, Any]]:
    """The replies about these pairs: the package throws away those that it cannot read."""
    found: dict[str, Reply] = {}
    with transcript.open(encoding="ascii") as lines:
        for record in map(json.loads, lines):
            body = record["request"]["body"]
            asked = "".join([m["content"] for m in body.get("messages", [])]) or body["prompt"]
            for pair in pairs if record["ok"] else []:
                if all(part in asked for part in (pair.instruction, pair.baseline, pair.output)):
                    found[pair.instruction] = reply_from(record["response"], reused=True)
    return [
        {
            "instruction": pair.instruction,
            "reply": reply.text if reply else None,
            "finish_reason": reply.finish_reason if reply else None,
        }
        for pair, reply in ((pair, found.get(pair.instruction)) for pair in pairs)
    ]


class _NoJudgement(Exception):
    """Not one reply could be read."""


def _package_failed(error: Exception, work: Path, pairs: list[Pair]) -> HarnessError:
    if isinstance(error, _NoJudgement):
        unjudged = _find_replies(work / TRANSCRIPT, pairs)
        write_rows(work / UNJUDGED, unjudged)
        return HarnessError(
            f"alpaca_eval could read none of the judge's {len(unjudged)} replies; the first is "
            f"{str(unjudged[0]['reply'])[:80]!r}",
            hint=f"see {work / UNJUDGED}; does the judge follow this annotator's prompt? "
            + ask_again(work),
        )
    return HarnessError(
        f"alpaca-eval failed: {type(error).__name__}: {error}",
        hint="its log is above. No answered call is lost: the same command goes on from there",
    )
