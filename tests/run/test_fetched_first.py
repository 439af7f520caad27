"""`harness run` and a hub on loopback: what rows name there is downloaded before any call is paid."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.common import env_variables
from tests.helpers import evaluation, harness, start, write_row
from tests.llm.fake_server import FakeServer
from tests.modeling.hub_server import GOOD_TOKEN, REVISION, Hub

MODEL, DATA = "some/model", "some/set"
SMALL = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@pytest.fixture
def hub(real_model: Path) -> Iterator[Hub]:
    """Holds the real model."""
    hub = Hub()
    hub.models[MODEL] = {p.name: p for p in real_model.iterdir()}
    yield hub
    hub.close()


@pytest.fixture
def paid() -> Iterator[FakeServer]:
    """An endpoint that counts what is asked of it."""
    with FakeServer(lambda body: "nothing of use") as server:
        yield server


@pytest.fixture
def env(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """A person's variables: a mirror and a key, and a proxy that leads nowhere but for loopback."""
    names = ("HARNESS_", "HF_", "TRANSFORMERS_", "TORCH")
    kept = {n: v for n, v in os.environ.items() if not n.startswith(names)}
    for name in (*env_variables.PROXY, *env_variables.NO_PROXY):
        kept.pop(name, None)
    mine = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "PAID_KEY": "sk-paid"}
    proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    return {**kept, **mine, **proxy, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}


def at_hub(name: str = MODEL) -> dict[str, Any]:
    return {"hub": {"id": name, "revision": REVISION}}


def real(paid: FakeServer, name: str, key: str = "PAID_KEY") -> dict[str, Any]:
    return {"model": name, "base_url": paid.endpoint().base_url, "api_key_env": key}


def paying(paid: FakeServer) -> dict[str, Any]:
    return {
        "recipe": "alpaca",
        "teacher": {
            "model": "teacher",
            "base_url": paid.endpoint().base_url,
            "api_key_env": "PAID_KEY",
        },
        "seeds": "seeds.jsonl",
        "prompt": "tasks.txt",
        "examples": 3,
        "shown": 1,
        "max_requests": 1,
    }


def answering(specs: Path, **parts: Any) -> dict[str, Any]:
    """An evaluation that answers one prompt in one token."""
    told = evaluation(specs)
    told["answer"] |= {"decoding": {"max_new_tokens": 1}, **parts}
    return told


def test_run_downloads_a_model_onto_an_empty_volume_and_uses_it(
    hub: Hub, env: dict[str, str], tmp_path: Path, real_model: Path
) -> None:
    specs, volume = tmp_path / "specs", tmp_path / "volume"
    template = {"from_tokenizer": True}
    spec = write_row(
        specs, gen=None, train=None, model=at_hub(), template=template, eval=answering(specs)
    )
    run = start(env, "run", "--only", "answer", spec, "--volume", volume)
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said
    (weights,) = volume.glob("models/*/model.safetensors")
    assert weights.read_bytes() == (real_model / "model.safetensors").read_bytes()
    asked = len(hub.tokens)

    shown = harness(env, "show", spec, "--prompt", "--volume", volume)
    assert shown.returncode == 0, shown.stdout
    assert "<|im_start|>" in shown.stdout
    chat = start(env, "chat", spec, "--once", "Hi", "--max-new-tokens", "1", "--volume", volume)
    said, _ = chat.communicate(timeout=300)
    assert chat.returncode == 0, said
    # Neither the stages nor what works in the command line's own process asks the hub again.
    assert len(hub.tokens) == asked


@pytest.mark.parametrize("only", [(), ("--only", "gen,train")])
@pytest.mark.parametrize("how", ["gated", "forbidden", "missing"])
def test_a_model_that_cannot_be_had_is_told_before_another_rows_teacher_is_paid(
    hub: Hub, env: dict[str, str], tmp_path: Path, paid: FakeServer, how: str, only: tuple[str, ...]
) -> None:
    specs = tmp_path / "specs"
    first = write_row(specs, "first", gen=paying(paid))
    second = write_row(specs, "second", gen=paying(paid), model=at_hub())
    if how == "missing":
        del hub.models[MODEL]
    else:
        hub.gated.add(MODEL)
    if how == "forbidden":
        env = {**env, "HF_TOKEN": "hf_of_somebody_else"}
    done = harness(env, "run", *only, first, second, "--volume", tmp_path / "volume")
    assert done.returncode == 2, done.stdout
    said = "there is no model some/model" if how == "missing" else "does not let this token read"
    assert said in done.stdout
    assert "Not run because of it: gen: first" in done.stdout
    assert "Traceback" not in done.stdout
    assert paid.requests == []


def test_a_paid_stage_alone_is_not_run_where_a_later_one_could_only_fail(
    hub: Hub, env: dict[str, str], tmp_path: Path, paid: FakeServer
) -> None:
    specs = tmp_path / "specs"
    spec = write_row(specs, gen=paying(paid), model=at_hub(), eval=answering(specs))
    prompts = specs / "prompts.jsonl"
    right = prompts.read_text()
    prompts.write_text("{")
    one = ("run", "--only", "gen", spec, "--volume", tmp_path / "volume")
    done = harness(env, *one)
    assert (done.returncode, paid.requests) == (2, []), done.stdout
    assert "prompts.jsonl:1" in done.stdout
    prompts.write_text(right)
    done = harness(env, *one)
    assert f"its other stages read {MODEL} from the hub" in done.stdout
    assert f"harnessfetch{spec}" in "".join(
        done.stdout.split()
    )  # lines are broken where they may be
    assert paid.requests != [], done.stdout


def test_every_model_and_data_set_that_cannot_be_had_is_told_at_once(
    hub: Hub, env: dict[str, str], tmp_path: Path, paid: FakeServer
) -> None:
    specs = tmp_path / "specs"
    hub.gated |= {MODEL}
    parts = answering(specs, prompts={"hub": {"id": DATA, "revision": REVISION}})
    parts["judge"]["judge"] = real(paid, "judge")
    spec = write_row(specs, gen=paying(paid), model=at_hub(), eval=parts)
    done = harness(env, "run", spec, "--volume", tmp_path / "volume")
    assert done.returncode == 2, done.stdout
    assert "the hub does not let this token read some/model" in done.stdout
    assert "there is no data set some/set on the hub" in done.stdout
    assert paid.requests == []


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        ("weights", "lacks model.safetensors"),
        ("split", "has no split 'test'"),
        ("key", "OTHER_KEY is not set"),
        ("seeds", "seeds.jsonl:1: not JSON"),
        ("columns", "no columns of the usual names hold"),
    ],
)
def test_what_a_later_stage_lacks_is_told_before_the_first_is_paid(
    hub: Hub, env: dict[str, str], tmp_path: Path, paid: FakeServer, lacking: str, said: str
) -> None:
    specs = tmp_path / "specs"
    hub.models[MODEL] = {n: f for n, f in hub.models[MODEL].items() if n in SMALL}
    hub.data_sets[DATA] = {"data.jsonl": b'{"instruction": "Say no.", "output": "no"}\n'}
    parts, more = answering(specs), {"gen": paying(paid)}
    if lacking == "weights":
        more["model"] = at_hub()
    if lacking == "split":
        split = {"id": DATA, "revision": REVISION, "split": "test"}
        parts["answer"]["prompts"] = {"hub": split}
    if lacking == "key":
        parts["judge"]["judge"] = real(paid, "judge", "OTHER_KEY")
    spec = write_row(specs, eval=parts, **more)
    if lacking == "columns":
        (specs / "z").mkdir()
        gen = {"recipe": "import", "hub": {"id": DATA, "revision": REVISION}}
        hub.data_sets[DATA] = {"data.jsonl": b'{"text": "Say no."}\n'}
        second = write_row(specs / "z", "second", gen=gen, train=None)
        done = harness(env, "run", spec, second, "--volume", tmp_path / "volume")
    elif lacking == "seeds":
        (specs / "broken").mkdir()
        second = write_row(specs / "broken", "second", train=None)
        (specs / "broken" / "seeds.jsonl").write_text("Say yes.\n")
        done = harness(env, "run", spec, second, "--volume", tmp_path / "volume")
    else:
        done = harness(env, "run", spec, "--volume", tmp_path / "volume")
    assert done.returncode == 2, done.stdout
    assert said in done.stdout
    assert paid.requests == []


def test_a_token_that_may_read_it_gets_a_gated_model(
    hub: Hub, env: dict[str, str], tmp_path: Path
) -> None:
    hub.gated.add(MODEL)
    hub.models[MODEL] = {n: f for n, f in hub.models[MODEL].items() if n in SMALL}
    spec = write_row(tmp_path / "specs", model=at_hub())
    token = {"HF_TOKEN": GOOD_TOKEN}
    done = harness({**env, **token}, "fetch", spec, "--volume", tmp_path / "volume")
    assert done.returncode == 0, done.stdout
    assert set(hub.fetched) == set(SMALL)


def test_a_data_set_is_downloaded_and_imported_by_the_same_run(
    hub: Hub, env: dict[str, str], tmp_path: Path
) -> None:
    hub.data_sets[DATA] = {"data.jsonl": b'{"instruction": "Say no.", "output": "no"}\n'}
    gen = {"recipe": "import", "hub": {"id": DATA, "revision": REVISION}}
    spec, volume = write_row(tmp_path / "specs", gen=gen, train=None), tmp_path / "volume"
    done = harness(env, "run", spec, "--volume", volume)
    assert done.returncode == 0, done.stdout
    (made,) = volume.glob("artefacts/gen/*/data.jsonl")
    assert "Say no." in made.read_text()
