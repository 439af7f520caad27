"""Exporting a trained model: to a small hub on loopback, and into a folder."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.artefact.call import MANIFEST, RESULT_FILE, StageResult
from tests.helpers import InstantExecutor, command, make, planned, snapshot, write_row
from tests.modeling.hub_server import GOOD_TOKEN, UploadHub

NAME = "someone/a-model"
WEIGHTS = bytes(range(256)) * 40
"""Large enough to be sent in parts."""
HUB_MODEL = {"hub": {"id": "owner/base", "revision": "a" * 40}}


class Trains(InstantExecutor):
    """Leaves a model where the row trains; each seed another."""

    def __init__(self, simulated: bool = False) -> None:
        super().__init__()
        self.simulated = simulated

    def run(self, job: Any, files: Any, on_event: Any) -> None:
        if job.stage != "train":
            snapshot(job.folder / "snapshot")
            (job.folder / RESULT_FILE).write_text('{"keep": []}')
            return
        seed = job.params["train"].seed
        model = job.folder / "model"
        model.mkdir()
        (model / "config.json").write_text('{"model_type": "qwen2"}')
        (model / "model.safetensors").write_bytes(WEIGHTS + bytes([seed]))
        (job.folder / "README.md").write_text("the stage's own card")
        (job.folder / "trainer_log.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
        (job.folder / "loss_curve.png").write_bytes(b"\x89PNG" + bytes(2000))
        result = StageResult(
            keep=["model", "README.md", "trainer_log.jsonl", "loss_curve.png"],
            metrics={"train_loss": {"value": 2.0}},
            counts={"examples": 3, "steps": 1},
            used={"parameters": 10},
            simulated=["teacher"] if self.simulated else [],
        )
        (job.folder / RESULT_FILE).write_text(json.dumps(vars(result)))


@pytest.fixture
def hub() -> Iterator[UploadHub]:
    hub = UploadHub()
    yield hub
    hub.close()


class Place:
    """A checkout's specs and volume, with a trained row, and the command line beside it."""

    def __init__(self, folder: Path, endpoint: str, simulated: bool = False, **row: Any) -> None:
        self.folder, self.volume = folder, folder / "runs"
        spec: dict[str, Any] = {"gen": None, "data": "seeds.jsonl", "model": HUB_MODEL, **row}
        self.spec = write_row(folder / "specs", **spec)
        make(self.volume, self.spec, executor=Trains(simulated))
        patience = folder / "patience"
        patience.mkdir()
        (patience / "sitecustomize.py").write_text(
            "import time\nsleep = time.sleep\ntime.sleep = lambda s: sleep(min(s, 0.01))\n"
        )
        self.env = {
            "PYTHONPATH": str(patience),
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(folder / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": GOOD_TOKEN,
        }

    def export(self, *options: str, to: str = f"hub:{NAME}", **variables: str | None) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for name in [
                n for n in os.environ if n.startswith(("HF_", "HARNESS_", "TRANSFORMERS_"))
            ]:
                patch.delenv(name)
            for name, value in {**self.env, **variables}.items():
                if value is not None:
                    patch.setenv(name, value)
            done = command("export", self.spec, "--to", to, "--volume", self.volume, *options)
        assert "Traceback" not in done.output, done.output
        assert GOOD_TOKEN not in done.output
        return done

    def train_folder(self) -> Path:
        (found,) = (self.volume / "artefacts" / "train").iterdir()
        return found


@pytest.fixture
def place(tmp_path: Path, hub: UploadHub) -> Place:
    return Place(tmp_path, hub.url)


def test_a_model_goes_to_the_hub_whole_private_and_with_its_card(
    place: Place, hub: UploadHub
) -> None:
    done = place.export()
    assert done.exit_code == 0, done.output
    repo = hub.repos[NAME]
    assert repo.private
    files = repo.branches["main"].files
    assert files["model.safetensors"] == WEIGHTS + bytes([42])
    assert set(files) == {".gitattributes", "config.json", "model.safetensors", "README.md",
                          "trainer_log.jsonl", "loss_curve.png"}  # fmt: skip
    card = files["README.md"].decode()
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["base_model"] == "owner/base"
    assert header["harness"]["row"] == "one"
    assert header["harness"]["key"] in (place.train_folder() / MANIFEST).read_text()
    assert "# The row one" in card
    assert f"AutoModelForCausalLM.from_pretrained('{NAME}')" in card
    assert len(repo.branches["main"].messages) == 1
    assert len(hub.received) == 3  # the weights, the picture, the card
    assert f"{hub.url}/{NAME} (private)" in done.output
    assert "upload" in done.output


def test_the_same_again_makes_no_commit_and_sends_nothing(place: Place, hub: UploadHub) -> None:
    place.export()
    hub.received.clear()
    done = place.export()
    assert done.exit_code == 0, done.output
    assert "nothing has changed there" in done.output
    assert len(hub.repos[NAME].branches["main"].commits) == 2
    assert not hub.received


def test_a_model_that_was_trained_again_takes_the_place_of_the_old_one(
    place: Place, hub: UploadHub
) -> None:
    place.export()
    files = hub.repos[NAME].branches["main"].files
    files |= {"adapter_model.safetensors": b"old", "LICENSE": b"the user's own"}
    write_row(place.spec.parent, gen=None, data="seeds.jsonl", model=HUB_MODEL, train={"seed": 7})
    make(place.volume, place.spec, executor=Trains())
    done = place.export()
    assert done.exit_code == 0, done.output
    assert files["model.safetensors"] == WEIGHTS + bytes([7])
    assert "adapter_model.safetensors" not in files
    assert files["LICENSE"] == b"the user's own"
    assert len(hub.repos[NAME].branches["main"].commits) == 3


def test_public_is_said_and_never_assumed(place: Place, hub: UploadHub) -> None:
    place.export("--public")
    assert not hub.repos[NAME].private
    done = place.export()
    assert done.exit_code == 2
    assert "is on the hub already, and public" in done.output
    assert "--public" in done.output
    hub.repos[NAME].private = True
    done = place.export("--public")
    assert done.exit_code == 0
    assert "was private and stays so" in done.output


def test_a_branch_of_its_own(place: Place, hub: UploadHub) -> None:
    done = place.export("--revision", "seed-42")
    assert done.exit_code == 0, done.output
    branches = hub.repos[NAME].branches
    assert set(branches["main"].files) == {".gitattributes"}
    assert branches["seed-42"].files["model.safetensors"] == WEIGHTS + bytes([42])
    assert "revision='seed-42'" in branches["seed-42"].files["README.md"].decode()
    assert f"{NAME}/tree/seed-42" in done.output


@pytest.mark.parametrize(
    "card",
    [{}, {"README.md": b"---\nharness: {row: other}\n---\n"}, {"README.md": b"---\n{}\n---\n"}],
)
def test_a_name_that_is_taken_is_left_alone(
    place: Place, hub: UploadHub, card: dict[str, bytes]
) -> None:
    hub.add(NAME, **{"model.safetensors": b"another", **card})
    done = place.export()
    assert done.exit_code == 2
    assert f"the name {NAME} is taken on the hub" in done.output
    assert ("row other" in done.output) == (b"other" in card.get("README.md", b""))
    assert hub.repos[NAME].branches["main"].files["model.safetensors"] == b"another"
    assert not hub.received


def test_an_empty_repository_made_beforehand_is_used(place: Place, hub: UploadHub) -> None:
    hub.add(NAME)
    assert place.export().exit_code == 0
    assert "model.safetensors" in hub.repos[NAME].branches["main"].files


def test_the_token_can_be_in_a_file_and_is_written_nowhere(place: Place, hub: UploadHub) -> None:
    file = place.folder / "token"
    file.write_text(f"{GOOD_TOKEN}\n")
    done = place.export(HF_TOKEN=None, HF_TOKEN_FILE=str(file))
    assert done.exit_code == 0, done.output
    written = [p for p in place.folder.rglob("*") if p.is_file() and p != file]
    assert len(written) > 10
    assert not [p for p in written if GOOD_TOKEN.encode() in p.read_bytes()]


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("none", 2, "HF_TOKEN is not set"),
        ("wrong", 2, "the hub does not accept the token in HF_TOKEN"),
        ("not ours", 2, f"does not let the token in HF_TOKEN write to {NAME}"),
        ("taken elsewhere", 2, f"the name {NAME} is taken on the hub"),
        ("offline", 1, f"{NAME} could not be uploaded to the hub"),
        ("nothing listens", 1, f"{NAME} could not be uploaded to the hub"),
        ("it fails", 1, f"{NAME} could not be uploaded to the hub"),
        ("it fails at the end", 1, f"{NAME} could not be uploaded to the hub"),
    ],
)
def test_each_fault_is_a_sentence(
    place: Place, hub: UploadHub, how: str, code: int, words: str
) -> None:
    variables: dict[str, str | None] = {}
    if how == "none":
        variables = {"HF_TOKEN": None}
    elif how == "wrong":
        variables = {"HF_TOKEN": "hf_wrongwrongwrong"}
    elif how == "offline":
        variables = {"HF_HUB_OFFLINE": "1"}
    elif how == "nothing listens":
        hub.close()
    else:
        hub.refusal = {
            "not ours": {"repos/create": 403},
            "taken elsewhere": {"repos/create": 409},
            "it fails": {"/": 500},
            "it fails at the end": {"/commit/": 500},
        }[how]
    done = place.export(**variables)
    assert (done.exit_code, words in done.output) == (code, True), done.output
    assert "hf_wrong" not in done.output
    if how == "it fails at the end":
        assert set(hub.repos[NAME].branches["main"].files) == {".gitattributes"}
        hub.refusal = {}
        sent = len(hub.received)
        assert place.export().exit_code == 0
        assert len(hub.received) == sent


@pytest.mark.parametrize("how", ["simulated data", "random weights"])
def test_what_is_no_real_model_is_uploaded_only_when_told_and_marked(
    tmp_path: Path, hub: UploadHub, how: str
) -> None:
    random = {"random": {"config": {"model_type": "qwen2"}}}
    changes = {"model": random} if how == "random weights" else {}
    place = Place(tmp_path, hub.url, simulated=how == "simulated data", **changes)
    done = place.export()
    assert done.exit_code == 2
    assert how.split()[0] in done.output
    assert "Say --simulated" in done.output
    assert not hub.requests
    assert place.export("--simulated").exit_code == 0
    card = hub.repos[NAME].branches["main"].files["README.md"].decode()
    assert f"> **{how.split()[0]}" in card
    assert how.replace(" data", "").replace(" ", "-") in card.split("---\n")[1]


def test_of_several_models_it_asks_which(tmp_path: Path, hub: UploadHub) -> None:
    place = Place(tmp_path, hub.url, replicates={"train_seeds": [1, 2]})
    done = place.export()
    assert done.exit_code == 2
    assert "2 trained models" in done.output
    assert '--label "train seed 1", --label "train seed 2"' in done.output
    done = place.export("--label", "train seed 3")
    assert done.exit_code == 2
    assert "no trained model 'train seed 3'" in done.output
    assert place.export("--label", "train seed 2").exit_code == 0
    files = hub.repos[NAME].branches["main"].files
    assert files["model.safetensors"] == WEIGHTS + bytes([2])
    assert "train seed 2" in files["README.md"].decode().replace("\\", "")


def test_a_copy_in_a_folder_is_what_the_hub_would_get(place: Place, hub: UploadHub) -> None:
    folder = place.folder / "out" / "copy"
    done = place.export("--model", to=str(folder), HF_TOKEN=None)
    assert done.exit_code == 0, done.output
    place.export()
    files = hub.repos[NAME].branches["main"].files
    there = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert set(there) == set(files) - {".gitattributes"}
    assert there["model.safetensors"] == files["model.safetensors"]
    assert "from_pretrained('.')" in there["README.md"].decode()
    assert [p.name for p in folder.parent.iterdir()] == ["copy"]
    done = place.export("--model", to=str(folder))
    assert done.exit_code == 2
    assert "is there already" in done.output


def test_a_damaged_model_is_not_exported(place: Place, hub: UploadHub) -> None:
    (place.train_folder() / "model" / "config.json").write_text("{}")
    done = place.export()
    assert done.exit_code == 1
    assert "was changed after it was made" in done.output
    assert not hub.requests


@pytest.mark.parametrize(
    ("to", "options", "words"),
    [
        ("hub:no-owner", [], "'no-owner' is no name on the hub"),
        ("hub:a/b/c", [], "is no name on the hub"),
        ("hub:a/b", ["--revision", "../x"], "cannot be a branch's name"),
    ],
)
def test_a_target_that_cannot_be_is_refused(
    place: Place, to: str, options: list[str], words: str
) -> None:
    volume = ["--volume", str(place.volume)]
    done = command("export", place.spec, "--to", to, *volume, *options)
    assert (done.exit_code, words in done.output) == (2, True), done.output


def test_a_row_without_a_model_of_its_own_is_told_so(tmp_path: Path) -> None:
    spec = write_row(tmp_path / "specs")
    done = command("export", spec, "--model", "--to", tmp_path / "x", "--volume", tmp_path / "runs")
    assert done.exit_code == 2
    assert "is not trained yet" in done.output
    assert f"harness run {spec}" in done.output
    spec = write_row(tmp_path / "specs", "two", train=None)
    done = command("export", spec, "--model", "--to", tmp_path / "x", "--volume", tmp_path / "runs")
    assert "row two trains no model" in done.output


def test_exporting_leaves_nothing_on_the_volume_and_is_not_kept_from_the_network(
    place: Place, hub: UploadHub
) -> None:
    place.export()
    assert not list((place.volume / "work").iterdir())
    (plan,) = planned(place.volume, place.spec)
    assert [s.status for s in plan.stages] == ["reuse"]
