"""Replay: what is made again from its record is the same to the byte and digit, or it is not exact."""

import errno
import io
import json
import math
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import harness.run.replay
from harness.artefact import environment
from harness.artefact.keys import digest_of, file_digest
from harness.artefact.store import Store, Unwritable
from harness.errors import InputError, Interrupted
from tests.helpers import (
    HARNESS,
    ROOT,
    InstantExecutor,
    command,
    evaluation,
    make,
    planned,
    planner,
    snapshot,
    write_row,
)

SMOKE = ROOT / "specs" / "smoke"


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A row with a small data set by the simulated teacher, in a specs/ folder of its own."""
    for name in ("HARNESS_DATA", "HARNESS_INPUTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SMOKE, tmp_path / "specs", ignore=shutil.ignore_patterns("*.yaml"))
    tree = {
        "row": "one",
        "table": "tests",
        "title": "One",
        "model": {"random": {"config": {"model_type": "qwen2"}, "tokenizer": "bytes"}},
        "template": {"prompt": "prompts/qa.txt"},
        "gen": {
            "recipe": "alpaca",
            "teacher": {"model": "teacher", "simulated": {}},
            "seeds": "seeds.jsonl",
            "prompt": "prompts/tasks.txt",
            "examples": 30,
            "filter": {"max_similarity": 1},
        },
    }
    path = tmp_path / "specs" / "one.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def change(spec: Path, **gen: Any) -> None:
    tree = yaml.safe_load(spec.read_text())
    tree["gen"] |= gen
    spec.write_text(yaml.safe_dump(tree))


def run(spec: Path) -> Path:
    """Make the data set; its folder."""
    done = command("run", spec)
    assert done.exit_code == 0, done.output
    (folder,) = Path("runs/artefacts/gen").iterdir()
    return folder


def test_a_replay_is_exact_and_leaves_nothing_behind(spec: Path) -> None:
    folder = run(spec)
    done = command("replay", "one")
    assert done.exit_code == 0, done.output
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert {"data.jsonl", "dropped.jsonl", "transcript.jsonl", "card.json"} <= set(files)
    assert f"exact, {len(files)} of {len(files)} files" in done.output
    assert "5 replies from the transcript" in done.output
    assert "one: 1 of 1 artefacts exact" in done.output
    assert list(Path("runs/work").iterdir()) == []


def reading(volume: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`harness ARGUMENTS` where the volume can only be read, and temporary files are in ./tmp."""
    read_only = f"mount --bind {volume} {volume} && mount -o remount,bind,ro {volume}"
    mounts = ["unshare", "--mount", "sh", "-c"]
    if subprocess.run([*mounts, read_only], capture_output=True).returncode:
        pytest.skip("this machine lets no process have mounts of its own")
    Path("tmp").mkdir(exist_ok=True)
    return subprocess.run(
        [*mounts, f'{read_only} && exec "$@"', "sh", *HARNESS, *arguments],
        env={**os.environ, "TMPDIR": os.path.abspath("tmp"), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_a_volume_that_can_only_be_read_is_replayed_in_a_temporary_folder_and_packed(
    spec: Path,
) -> None:
    folder = run(spec)
    done = reading(Path("runs"), "replay", "one")
    assert done.returncode == 0, done.stdout
    assert "one: 1 of 1 artefacts exact" in done.stdout
    assert list(Path("tmp").iterdir()) == []
    done = reading(Path("runs"), "export", "one", "--to", "one.zip")
    assert done.returncode == 0, done.stdout
    assert command("replay", "one.zip").exit_code == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("seal")
    manifest["counts"]["examples"] = 7
    seal = digest_of(manifest)
    (folder / "manifest.json").write_text(json.dumps({**manifest, "seal": seal}))
    done = reading(Path("runs"), "replay", "one")
    assert done.returncode == 1, done.stdout
    assert "count examples (recorded 7" in done.stdout
    [work] = Path("tmp").glob("harness-replay-*/work/*")
    assert str(work.resolve()) in done.stdout.replace("\n", "")
    assert list(Path("runs/work").iterdir()) == []


def test_a_volume_without_space_is_replayed_in_a_temporary_folder(
    spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(spec)
    monkeypatch.setattr(tempfile, "tempdir", str(spec.parent))
    touch = Path.touch

    def full(path: Path, *arguments: Any, **more: Any) -> None:
        if path.name.startswith(".probe-") and Path("runs").resolve() in path.resolve().parents:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        touch(path, *arguments, **more)

    monkeypatch.setattr(Path, "touch", full)
    done = command("replay", "one")
    assert done.exit_code == 0, done.output
    assert "one: 1 of 1 artefacts exact" in done.output
    assert not list(spec.parent.glob("harness-replay-*"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted("stopped", "Go on.")])
def test_a_replay_that_was_stopped_leaves_nothing_and_says_so(
    spec: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    run(spec)
    monkeypatch.setattr(tempfile, "tempdir", str(spec.parent))

    def stop(job: Any, *others: Any) -> None:
        (job.folder / "half").write_text("made")
        raise error

    def refuse(store: Store) -> None:
        if store.root == Path("runs").resolve():
            raise Unwritable("the volume cannot be written")
        prepare(store)

    prepare = Store.prepare
    monkeypatch.setattr(harness.run.replay, "carry_out", stop)
    for _ in ("written", "read alone"):
        done = command("replay", "one")
        assert done.exit_code == 130, done.output
        assert "was stopped; nothing of it is kept" in done.output
        assert "go on" not in done.output.lower()
        assert list(Path("runs/work").iterdir()) == []
        assert not list(spec.parent.glob("harness-replay-*"))
        monkeypatch.setattr(Store, "prepare", refuse)


def test_gc_leaves_alone_what_a_replay_works_on(
    spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("run", spec).exit_code == 0
    carry_out = harness.run.replay.carry_out
    listed = []

    def beside_gc(*arguments: Any) -> Any:
        listed.append(command("gc", "--yes").stdout)
        return carry_out(*arguments)

    monkeypatch.setattr("harness.run.replay.carry_out", beside_gc)
    done = command("replay", spec)
    assert done.exit_code == 0, done.output
    assert listed == ["removed 0 items, 0 bytes\n"]


def test_a_file_that_comes_out_otherwise_is_named_and_the_replay_fails(
    spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(spec)
    # A transcript that a person changed, and a manifest sealed over it.
    path = folder / "transcript.jsonl"
    first, *others = path.read_text().splitlines()
    record = json.loads(first)
    message = record["response"]["choices"][0]["message"]
    message["content"] = message["content"].replace("Instruction: ", "Instruction: Please, ", 1)
    lines = [json.dumps(record, separators=(",", ":")), *others]
    path.write_text("".join(line + "\n" for line in lines))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("seal")
    manifest["files"]["transcript.jsonl"] = {
        "sha256": file_digest(path), "size": path.stat().st_size,
    }  # fmt: skip
    text = json.dumps({**manifest, "seal": digest_of(manifest)}, indent=2, sort_keys=True)
    (folder / "manifest.json").write_text(text + "\n")
    done = command("replay", "one")
    assert done.exit_code == 1
    assert "data.jsonl (other bytes)" in done.output
    assert "1 of 1 artefacts came out different" in done.output
    (work,) = Path("runs/work").iterdir()
    assert "Please, " in (work / "data.jsonl").read_text()


def test_a_request_that_the_transcript_lacks_fails_and_shows_the_nearest_one(spec: Path) -> None:
    folder = run(spec)
    own = folder / "transcript.jsonl"
    shutil.copy(own, spec.parent / "published.jsonl")
    (spec.parent / "prompts" / "tasks.txt").write_text(
        (SMOKE / "prompts" / "tasks.txt").read_text().replace("practice tasks", "hard tasks")
    )
    change(spec, transcript="published.jsonl")
    done = command("run", spec)
    assert done.exit_code == 1
    assert "-" in done.output
    assert "practice tasks" in done.output
    assert "hard tasks" in done.output


def test_a_transcript_named_in_the_spec_makes_the_same_data_without_a_teacher(spec: Path) -> None:
    folder = run(spec)
    shutil.copy(folder / "transcript.jsonl", spec.parent / "published.jsonl")
    shutil.rmtree("runs")
    change(
        spec,
        transcript="published.jsonl",
        # The calls were recorded with this key's name in the spec, and it is set nowhere.
        teacher={"model": "teacher", "simulated": {}, "api_key_env": "NOBODY_HAS_THIS"},
    )
    before = (spec.parent / "published.jsonl").read_bytes()
    again = run(spec)
    manifest = json.loads((again / "manifest.json").read_text())
    assert manifest["simulated"] == ["teacher"]
    assert manifest["cost"]["calls"] == 0
    assert (again / "transcript.jsonl").read_bytes() == before
    assert command("replay", "one").exit_code == 0


def test_a_replay_reaches_no_server_even_where_one_answers(
    spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.sim.server import start
    from harness.spec.base import Simulated

    with start(Simulated()) as server:
        change(spec, teacher={"model": "teacher", "base_url": server.base_url})
        run(spec)
        asked = server.requests
        done = command("replay", "one")
        assert done.exit_code == 0, done.output
        assert server.requests == asked


def test_every_step_of_a_chain_is_replayed(spec: Path) -> None:
    tree = yaml.safe_load(spec.read_text())
    tree["gen"] = [tree["gen"], {"recipe": "random_k", "k": 10}, {"recipe": "longest_k", "k": 5}]
    spec.write_text(yaml.safe_dump(tree))
    assert command("run", spec).exit_code == 0
    done = command("replay", spec)
    assert done.exit_code == 0, done.output
    assert done.output.count(": exact, ") == 3
    assert "one: 3 of 3 artefacts exact" in done.output


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("one", "there is nothing to replay"),
        ("--stage=judge one", "row one has no judge stage"),
        ("on", "Near: one"),
        ("zzz", "no row 'zzz' below specs/ Of a row elsewhere"),
    ],
)
def test_what_cannot_be_replayed_is_said(spec: Path, name: str, said: str) -> None:
    done = command("replay", *name.split())
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_a_damaged_artefact_is_not_replayed(spec: Path) -> None:
    folder = run(spec)
    (folder / "data.jsonl").write_text("{}\n")
    done = command("replay", "one")
    assert done.exit_code != 0
    assert "data.jsonl" in done.output


def test_the_data_card_is_shown_with_its_mark(spec: Path) -> None:
    run(spec)
    done = command("show", "one", "--data")
    assert done.exit_code == 0, done.output
    assert "simulated: teacher" in done.output
    cards = json.loads(command("show", "one", "--data", "--json").output)
    assert cards[0]["format"] == 1


def test_the_shown_card_says_whose_tokenizer_counted(spec: Path) -> None:
    """The data set is the same one for a row of another tokenizer."""
    folder = run(spec)
    tree = {**yaml.safe_load(spec.read_text()), "row": "two", "model": None, "template": None}
    spec.with_name("two.yaml").write_text(yaml.safe_dump(tree))
    said = " ".join(command("show", "two", "--data").output.split())
    assert "tokenizer: bytes, that of row one, which made the data set; special tokens" in said
    assert "tokenizer: bytes; special tokens" in (folder / "card.md").read_text()


def test_a_copy_of_a_simulated_data_set_says_so_on_another_volume(
    spec: Path, tmp_path: Path
) -> None:
    folder = run(spec)
    copy = spec.parent / "copy.jsonl"
    copy.write_text((folder / "data.jsonl").read_text() + "\n")
    tree = yaml.safe_load(spec.read_text())
    tree["gen"] = {"recipe": "import", "file": "copy.jsonl"}
    spec.write_text(yaml.safe_dump(tree))
    assert command("run", "--volume", tmp_path / "elsewhere", spec).exit_code == 0
    (made,) = (tmp_path / "elsewhere" / "artefacts" / "gen").iterdir()
    assert json.loads((made / "manifest.json").read_text())["simulated"] == ["teacher"]
    assert "simulated" in (made / "card.md").read_text()
    rows = [json.loads(line) for line in (made / "data.jsonl").read_text().splitlines()]
    assert [r["simulated"] for r in rows] == [r["id"].startswith("generated") for r in rows]


def test_a_card_that_was_changed_is_not_shown(spec: Path) -> None:
    folder = run(spec)
    (folder / "card.json").write_text("[]")
    done = command("show", "one", "--data")
    assert done.exit_code != 0
    assert "card.json" in done.output


def test_of_a_chain_the_last_card_is_shown_and_the_others_are_named(spec: Path) -> None:
    tree = yaml.safe_load(spec.read_text())
    tree["gen"] = [tree["gen"], {"recipe": "random_k", "k": 10}]
    spec.write_text(yaml.safe_dump(tree))
    assert command("run", spec).exit_code == 0
    shown = command("show", "one", "--data").output
    assert "one (step 2 random_k)" in shown
    assert "10 examples of instruction data" in shown
    (line,) = [
        li for li in shown.splitlines() if li.startswith("one (step 1 alpaca): harness show")
    ]
    again = command(*line.split(": harness ")[1].split()).output
    assert "50 examples of instruction data" in again


SCORE = {"value": 94.0, "standard_error": 0.1, "judged": 2, "expected": 2}
LOG_LINES = [
    {"step": 1, "loss": 2.5, "tokens": 10, "prompt_tokens": 4},
    {"step": 2, "loss": 0.1 + 0.2, "tokens": 21, "prompt_tokens": 9},
    {"step": 2, "held_out_loss": 1.7, "bits_per_byte": 1.7 * 40 / math.log(2) / 123,
     "held_out_tokens": 40},
]  # fmt: skip
HELD_OUT = {"examples": 3, "tokens": 40}
TRAINED = {
    "train_loss": {"value": 0.1 + 0.2},
    "held_out_loss": {"value": 1.7, **HELD_OUT},
    "bits_per_byte": {"value": 1.7 * 40 / math.log(2) / 123, **HELD_OUT, "bytes": 123},
}


class Recorded(InstantExecutor):
    """Makes `text` and `result` of each stage; keeps the jobs."""

    def __init__(self, text: str = "", **result: Any) -> None:
        super().__init__()
        self.text, self.result, self.jobs = text, result, []

    def run(self, job: Any, files: Any, on_event: Any) -> None:
        from dataclasses import asdict

        from harness.artefact.call import RESULT_FILE, StageResult

        self.jobs.append(job)
        kept = {"made.txt": self.text or job.stage}
        result: dict[str, Any] = {}
        if job.stage == "judge":
            result = {"metrics": {"win_rate": SCORE}, "counts": {"judged": 2}}
        if job.stage == "train":
            kept |= {"trainer_log.jsonl": "".join(json.dumps(one) + "\n" for one in LOG_LINES)}
            counts = {"examples": 7, "held_out": 3, "steps": 2, "tokens": 21, "prompt_tokens": 9}
            result = {"metrics": TRAINED, "counts": counts}
        for name, text in kept.items():
            (job.folder / name).write_text(text)
        outcome = StageResult(keep=list(kept), **{**result, **self.result})
        (job.folder / RESULT_FILE).write_text(json.dumps(asdict(outcome)))


def whole_row(folder: Path, **changes: Any) -> Path:
    """A row that trains on given data, answers and is judged; made."""
    parts = evaluation(folder / "specs")
    return write_row(
        folder / "specs", gen=None, data="seeds.jsonl", eval=parts,
        train={"steps": 2, "validation": {"share": 0.5}}, **changes,
    )  # fmt: skip


def replays(folder: Path, spec: Path, executor: Any, *stages: str) -> list[Any]:
    """The Replayed of each stage, by an executor in place of the stages."""
    from rich.console import Console

    from harness.artefact.environment import STAGES
    from harness.run.replay import replay, to_replay
    from harness.run.runner import Runner

    plan = planner(folder)
    runner = Runner(plan.store, plan.files, executor, Console(file=io.StringIO()))
    (row,) = planned(folder, spec)
    return [replay(runner, stage) for stage in to_replay(row, stages or STAGES)]


def test_every_stage_of_a_row_is_replayed_but_nothing_is_trained(tmp_path: Path) -> None:
    volume = tmp_path / "runs"
    spec = whole_row(tmp_path)
    make(volume, spec, executor=Recorded())
    again = Recorded()
    train, answer, judge = replays(volume, spec, again)
    assert [job.stage for job in again.jobs] == ["answer", "judge"]
    assert all(job.replay for job in again.jobs)
    assert train.exact
    assert "not made again" in train.notes[0]
    assert answer.exact
    assert (judge.exact, judge.numbers) == (True, 5)
    assert list((volume / "work").iterdir()) == []


def test_a_stage_is_given_its_own_artefact_and_its_inputs(tmp_path: Path) -> None:
    volume = tmp_path / "runs"
    spec = whole_row(tmp_path)
    make(volume, spec, executor=Recorded())
    again = Recorded()
    train, answer, judge = replays(volume, spec, again)
    asked, judged = again.jobs
    assert asked.inputs["recorded"] == str(answer.artefact.folder)
    assert asked.inputs["model"] == str(train.artefact.folder)
    assert judged.inputs["recorded"] == str(judge.artefact.folder)
    assert judged.inputs["outputs"] == str(answer.artefact.folder)


def test_answers_are_replayed_without_the_model(tmp_path: Path) -> None:
    volume = tmp_path / "runs"
    hub = {"id": "some/model", "revision": "0" * 40}
    spec = whole_row(tmp_path, model={"hub": hub})
    snapshot(volume / "models" / f"some--model-{'0' * 12}")
    make(volume, spec, executor=Recorded())
    shutil.rmtree(volume / "models")
    shutil.rmtree(volume / "artefacts" / "train")
    again = Recorded()
    answer, judge = replays(volume, spec, again, "answer", "judge")
    assert answer.exact
    assert judge.exact
    assert set(again.jobs[0].inputs) == {"recorded"}


@pytest.mark.parametrize(
    ("stage", "changed", "said"),
    [
        (
            "judge",
            {"metrics": {"win_rate": {**SCORE, "value": math.nextafter(94.0, 95)}}},
            "metric win_rate.value (recorded 94.0, now 94.00000000000001)",
        ),
        ("judge", {"metrics": {}}, "metric win_rate.judged (the replay gives none)"),
        (
            "judge",
            {"metrics": {"win_rate": SCORE, "other": {"value": 1}}},
            "metric other.value (only the replay gives it: 1)",
        ),
        ("judge", {"counts": {"judged": 1}}, "count judged (recorded 2, now 1)"),
        ("answer", {"text": "another answer"}, "made.txt (other bytes)"),
    ],
)
def test_what_comes_out_otherwise_is_named(
    tmp_path: Path, stage: str, changed: dict[str, Any], said: str
) -> None:
    volume = tmp_path / "runs"
    spec = whole_row(tmp_path)
    make(volume, spec, executor=Recorded())
    (replayed,) = replays(volume, spec, Recorded(**changed), stage)
    assert not replayed.exact
    assert said in replayed.different
    assert replayed.folder is not None
    assert (replayed.folder / "made.txt").exists()


@pytest.mark.parametrize(
    ("metric", "figure", "said"),
    [
        ("train_loss", "value", "train_loss.value (recorded 9, now 0.30000000000000004)"),
        ("held_out_loss", "value", "held_out_loss.value (recorded 9, now 1.7)"),
        ("held_out_loss", "examples", "held_out_loss.examples (recorded 9, now 3)"),
        ("bits_per_byte", "tokens", "bits_per_byte.tokens (recorded 9, now 40)"),
        ("bits_per_byte", "bytes", "bits_per_byte.bytes (recorded 9, now 123)"),
    ],
)
def test_a_training_whose_log_says_another_number_is_not_exact(
    tmp_path: Path, metric: str, figure: str, said: str
) -> None:
    volume = tmp_path / "runs"
    spec = whole_row(tmp_path)
    wrong = {**TRAINED, metric: {**TRAINED[metric], figure: 9}}
    make(volume, spec, executor=Recorded(metrics=wrong))
    (train,) = replays(volume, spec, Recorded(), "train")
    assert train.different == [f"metric {said}"]


def test_counts_of_a_training_are_those_of_its_log(tmp_path: Path) -> None:
    volume = tmp_path / "runs"
    spec = whole_row(tmp_path)
    counts = {"held_out": 3, "steps": 3, "tokens": 21, "prompt_tokens": 9}
    make(volume, spec, executor=Recorded(counts=counts))
    (train,) = replays(volume, spec, Recorded(), "train")
    assert train.different == ["count steps (recorded 3, now 2)"]


def test_the_row_is_summed_up_with_its_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.run.executors import local

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    spec = whole_row(tmp_path, replicates={"judge": 2})
    make(tmp_path / "runs", spec, executor=Recorded())
    monkeypatch.setattr(local.LocalExecutor, "run", Recorded().run)
    done = command("replay", "one")
    assert done.exit_code == 0, done.output
    assert "one: 4 of 4 artefacts exact; train_loss 0.30000000000000004" in done.output
    assert "win_rate 94.0 (mean of 2) recomputed" in done.output
    shutil.rmtree(next(Path("runs/artefacts/judge").iterdir()))
    done = command("replay", "one")
    assert done.exit_code == 2
    assert "one: 3 of 4 artefacts exact; not on the volume: judge (judging" in done.output
    assert "1 of 4 artefacts are not on the volume" in done.output
    assert command("replay", "one", "--stage", "train", "--stage", "answer").exit_code == 0


def test_no_metric_is_called_recomputed_where_an_artefact_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.run.executors import local

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    spec = whole_row(tmp_path)
    make(tmp_path / "runs", spec, executor=Recorded())
    monkeypatch.setattr(local.LocalExecutor, "run", Recorded("other").run)
    done = command("replay", "one")
    assert done.exit_code == 1
    assert "one: 1 of 3 artefacts exact" in done.output
    assert "recomputed" not in done.output


def test_a_judge_is_replayed_only_with_the_outputs_it_judged(tmp_path: Path) -> None:
    volume = tmp_path / "runs"
    spec = whole_row(tmp_path)
    make(volume, spec, executor=Recorded())
    (outputs,) = (volume / "artefacts" / "answer").glob("*/made.txt")
    outputs.write_text("others")
    with pytest.raises(Exception, match="changed after it was made"):
        replays(volume, spec, Recorded(), "judge")


def test_a_prompt_set_of_the_hub_has_to_be_there(tmp_path: Path) -> None:
    volume = tmp_path / "runs"
    spec = whole_row(tmp_path)
    tree = yaml.safe_load(spec.read_text())
    hub = {"id": "some/prompts", "revision": "1" * 40, "file": "a.jsonl"}
    tree["eval"]["answer"]["prompts"] = {"hub": hub}
    spec.write_text(yaml.safe_dump(tree))
    folder = volume / "datasets" / f"some--prompts-{'1' * 12}"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text('{"instruction": "Say no."}\n')
    make(volume, spec, executor=Recorded())
    again = Recorded()
    replays(volume, spec, again, "answer", "judge")
    assert [job.inputs["prompts"] for job in again.jobs] == [str(folder), str(folder)]
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="some/prompts is not on the volume"):
        replays(volume, spec, Recorded(), "judge")


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A row with every stage, made in the images; its folder is the working directory."""
    from harness.run.executors import local

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setenv("HARNESS_ACCELERATOR", "cpu")
    environment.accelerator.cache_clear()
    spec = write_row(tmp_path / "specs", eval=evaluation(tmp_path / "specs"))
    make(tmp_path / "runs", spec, executor=Recorded(), kind="docker")
    environment.environment_of.cache_clear()
    monkeypatch.setattr(local.LocalExecutor, "run", Recorded().run)
    return tmp_path


@pytest.mark.parametrize(
    ("image", "here", "left_out"),
    [
        ("gen", ["gen", "train"], {"eval": "answer, judge"}),
        ("train-cpu", ["train"], {"gen": "gen", "eval": "answer, judge"}),
        ("eval-cpu", ["train", "answer", "judge"], {"gen": "gen"}),
    ],
)
def test_an_image_replays_what_runs_in_it_and_says_what_replays_the_rest(
    judged: Path, in_image: Any, image: str, here: list[str], left_out: dict[str, str]
) -> None:
    in_image(image)
    done = command("replay", "one")
    assert done.exit_code == 0, done.output
    assert f"one: {len(here)} of {len(here)} artefacts exact" in done.output
    said = [line for line in done.output.splitlines() if "docker compose" in line]
    assert said == [
        f'{stages}: docker compose run --rm --entrypoint "python -m harness replay" {service} one'
        for service, stages in left_out.items()
    ]


def test_a_stage_of_another_image_that_is_asked_for_is_refused(judged: Path, in_image: Any) -> None:
    in_image("gen")
    done = command("replay", "one", "--stage", "judge")
    assert done.exit_code == 2
    assert "none of its stages is replayed in this image" in done.output
    assert '"python -m harness replay" eval one' in done.output


@pytest.fixture
def in_image(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the image that the harness takes itself to be in."""

    def set_to(name: str) -> None:
        image = {"image": name, "lock": environment.lock_digest(name), "base": "x"}
        monkeypatch.setattr(environment, "current_image", lambda: image)
        environment.environment_of.cache_clear()

    yield set_to
    environment.environment_of.cache_clear()
    environment.accelerator.cache_clear()
