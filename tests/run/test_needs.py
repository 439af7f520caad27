"""What rows need: there or missing, and the command that brings it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from harness.artefact.store import Store
from harness.cli.views.needs import repository
from harness.modeling.memory.shapes import from_config
from harness.run.needs import NeededItem, is_gated, needs_of, size_by_name, spoken
from harness.spec.model_source import HubModel
from tests.helpers import (
    InstantExecutor,
    Volume,
    command,
    evaluation,
    give_gpus,
    make,
    planned,
    planner,
    snapshot,
    some_gpus,
    write_row,
)

PAID = {"model": "gpt-4", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "ROW_TEST_KEY"}
OF_EMPTY_LIST = "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"
"""sha256 of `[]`."""
HUB = {"id": "meta-llama/Llama-2-7b-hf", "revision": "0" * 40}
SMALL = {
    "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip


@pytest.fixture
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ROW_TEST_KEY", "ROW_TEST_KEY_FILE", "HF_TOKEN", "HF_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "specs"


def items(root: Path, *specs: Path) -> dict[tuple[str, str], NeededItem]:
    needs = needs_of(planned(root, *specs), planner(root), specs)
    return {(item.kind, item.name): item for item in needs.items}


def test_files_models_and_keys_are_told_with_size_address_and_whether_they_are_there(
    specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = tmp_path / "volume"
    parts = evaluation(specs, judge=PAID)
    address = "https://example.com/x/base.json?download=1"
    parts["judge"]["reference"] = {"url": address, "sha256": OF_EMPTY_LIST, "bytes": 1234567}
    spec = write_row(specs, model={"hub": HUB}, eval=parts)
    result = command("needs", spec, "--volume", volume, "--json")
    assert result.exit_code == 1
    assert result.stderr == ""
    answer = json.loads(result.stdout)
    by_kind = {item["kind"]: item for item in answer["items"] if item["kind"] != "key"}
    file = by_kind["file"]
    assert (file["name"], file["state"], file["bytes"]) == ("base.json", "missing", 1234567)
    assert file["address"] == "https://example.com/x/base.json"
    model = by_kind["model"]
    assert (model["name"], model["state"], model["bytes"]) == (HUB["id"], "missing", 14 * 10**9)
    assert "gated: accept its terms" in model["note"]
    keys = {item["name"]: item for item in answer["items"] if item["kind"] == "key"}
    assert {name: item["state"] for name, item in keys.items()} == {
        "ROW_TEST_KEY": "missing", "HF_TOKEN": "missing",
    }  # fmt: skip
    assert (answer["rows"], answer["complete"]) == (["one"], False)
    assert answer["command"] == f"harness fetch {spec} --volume {volume}"

    monkeypatch.setenv("ROW_TEST_KEY", "a-key-that-is-told-to-nobody")
    [plan] = planned(volume, spec)
    folder = Store(volume).hub_folder(plan.row.model.hub)
    folder.mkdir(parents=True)
    snapshot(folder)
    brought = volume / "files" / OF_EMPTY_LIST / "base.json"
    brought.parent.mkdir(parents=True)
    brought.write_text("[]")
    result = command("needs", spec, "--volume", volume, "--json")
    assert "told-to-nobody" not in result.output
    assert result.stdout, result.stderr
    states = {(i["kind"], i["name"]): i["state"] for i in json.loads(result.stdout)["items"]}
    assert states["file", "base.json"] == "there"
    assert states["model", HUB["id"]] == "there"
    assert states["key", "ROW_TEST_KEY"] == "there"
    assert ("key", "HF_TOKEN") not in states


def test_given_data_without_an_address_is_told_as_missing_and_where_it_belongs(
    specs: Path, tmp_path: Path
) -> None:
    spec = write_row(specs, gen=None, data="data:mine.json")
    (tmp_path / "inputs").mkdir()
    result = command("needs", spec, "--volume", tmp_path / "volume")
    assert result.exit_code == 1
    assert "file     missing   data:mine.json" in result.stdout
    assert "Put it into inputs" in result.stdout
    assert "brought by" not in result.stdout
    assert "no fetch brings this: data:mine.json: Put it into inputs" in result.stdout


def test_fetch_is_said_to_bring_what_it_brings_and_the_rest_has_an_advice_of_its_own(
    specs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    parts = evaluation(specs, judge=PAID)
    parts["judge"]["reference"] = {"url": "https://example.com/base.json", "sha256": OF_EMPTY_LIST}
    spec = write_row(specs, eval=parts)
    lines = command("needs", spec).stdout.splitlines()
    assert f"  base.json: brought by: harness fetch {spec}" in lines
    assert "  no fetch brings this: set ROW_TEST_KEY or ROW_TEST_KEY_FILE" in lines
    [disk] = [line for line in lines if line.startswith("  disk")]
    assert "not known" in disk
    assert "without base.json, whose size is not known" in disk


def test_disk_is_there_where_every_size_is_known_and_missing_where_they_are_too_much(
    specs: Path, tmp_path: Path
) -> None:
    for size, state in ((10, "there"), (10**18, "missing")):
        seeds = {"url": "https://example.com/a.json", "sha256": OF_EMPTY_LIST, "bytes": size}
        spec = write_row(specs, gen=None, data=seeds, model={"random": {"config": SMALL}})
        disk = items(tmp_path / "volume", spec)["disk", "on the volume"]
        assert disk.state == state
    assert disk.advice == f"make room on the volume {tmp_path / 'volume'}"


def test_given_data_that_no_fetch_brings_takes_no_room_on_the_volume(specs: Path) -> None:
    spec = write_row(specs, gen=None, data="data:a.json", model={"random": {"config": SMALL}})
    result = json.loads(command("needs", spec, "--json").stdout)
    [disk] = [item for item in result["items"] if item["kind"] == "disk"]
    assert (disk["state"], "a.json" in disk["note"]) == ("there", False)


def test_a_key_whose_file_cannot_be_read_is_missing(
    specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_row(specs, eval=evaluation(specs, judge=PAID))
    monkeypatch.setenv("ROW_TEST_KEY_FILE", str(tmp_path / "key"))
    key = items(tmp_path / "volume", spec)["key", "ROW_TEST_KEY"]
    assert key.state == "missing"
    assert key.advice == "ROW_TEST_KEY_FILE: correct ROW_TEST_KEY_FILE or the file's permissions"
    (tmp_path / "key").write_text("a-key-that-is-told-to-nobody")
    assert items(tmp_path / "volume", spec)["key", "ROW_TEST_KEY"].state == "there"


def test_data_sets_of_one_repository_are_told_apart_by_their_configuration(
    specs: Path, tmp_path: Path
) -> None:
    tasks = {
        name: {"hub": {"id": "me/questions", "revision": "0" * 40, "config": name}}
        for name in ("arc_easy", "gsm8k")
    }
    spec = write_row(specs, eval={"judge": {"kind": "lm_eval", "tasks": tasks}})
    names = {name for kind, name in items(tmp_path / "volume", spec) if kind == "data set"}
    assert names == {"me/questions (arc_easy)", "me/questions (gsm8k)"}


def test_a_plan_ends_with_what_is_needed_and_the_command_that_brings_it(
    specs: Path, tmp_path: Path
) -> None:
    spec = write_row(specs, model={"hub": HUB})
    result = command("plan", spec, "--volume", tmp_path / "volume")
    assert result.exit_code == 0
    head, _, tail = result.stdout.partition("\nneeds\n")
    assert "2 stages to run" in head.replace("\n", " ")
    assert "model    missing   meta-llama/Llama-2-7b-hf  13.0 GiB" in tail
    command_line = f"brought by: harness fetch {spec} --volume {tmp_path / 'volume'}"
    assert command_line in " ".join(tail.split())


@pytest.mark.parametrize("name", ["needs", "plan"])
def test_the_command_has_the_volume_and_the_given_data_that_were_typed_and_no_defaults(
    specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    spec = write_row(specs, model={"hub": HUB})
    (tmp_path / "my data").mkdir()
    monkeypatch.setenv("COLUMNS", "1000")
    plain = command(name, spec).stdout
    assert f"brought by: harness fetch {spec}\n" in plain
    result = command(name, spec, "--volume", "v", "--data", "my data").stdout
    assert f"brought by: harness fetch {spec} --inputs 'my data' --volume v\n" in result


def test_a_row_that_is_done_needs_nothing(specs: Path, tmp_path: Path) -> None:
    spec = write_row(specs)
    volume = Volume(tmp_path)
    volume.run(spec)
    assert items(volume.store.root, spec) == {}
    result = command("plan", spec, "--volume", volume.store.root)
    assert "needs" not in result.stdout.splitlines()
    result = command("needs", spec, "--volume", volume.store.root)
    assert (result.exit_code, result.stdout) == (0, "nothing: all stages are there\n")


def test_time_is_foretold_by_the_same_work_with_another_seed_and_not_by_other_work(
    specs: Path, tmp_path: Path
) -> None:
    volume = tmp_path / "volume"

    def slow(job: Any) -> dict[str, Any]:
        return {"cost": {"stage_seconds": {"gen": 600, "train": 7200}[job.stage]}}

    make(volume, write_row(specs), executor=InstantExecutor(slow))
    same = write_row(specs, "same", train={"steps": 1, "seed": 7})
    time = items(volume, same)["time", "about 2.0 h"]
    assert time.state == "expected"
    assert time.note == "as the stage took before on this volume"
    other = write_row(specs, "other", train={"steps": 2})
    assert items(volume, other)["time", ""].state == "not known"
    two = write_row(specs, "two", train={"steps": 1}, replicates={"train_seeds": [8, 9]})
    note = items(volume, two)["time", "about 4.0 h"].note
    assert note == "as all 2 stages took before on this volume"
    note = items(volume, two, other)["time", "about 4.0 h"].note
    assert note == "as 2 of 3 stages took before on this volume; of 1 nothing is known"
    tree = yaml.safe_load((specs / "one.yaml").read_text())
    tree["train"]["steps"] = 3
    (specs / "one.yaml").write_text(yaml.safe_dump(tree))
    assert ("time", "about 2.0 h") in items(volume, specs / "one.yaml")


def test_memory_is_there_where_the_training_fits_and_missing_where_it_does_not(
    specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"random": {"config": SMALL}}
    spec = write_row(specs, model=model)
    give_gpus(monkeypatch)
    memory = items(tmp_path / "volume", spec)["memory", "for train"]
    assert memory.state == "there"
    assert memory.note.startswith("no GPU is used; this machine has")
    large = {**SMALL, "hidden_size": 65536, "intermediate_size": 262144, "num_hidden_layers": 80}
    spec = write_row(specs, "large", model={"random": {"config": large}})
    memory = items(tmp_path / "volume", spec)["memory", "for train"]
    assert memory.state == "missing"
    assert memory.bytes is not None
    assert memory.bytes > 10**12


def test_the_gpu_that_a_stage_will_have_is_what_its_memory_is_held_against(
    specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.artefact import environment

    give_gpus(monkeypatch, *some_gpus(1))
    monkeypatch.setattr(environment, "lacks_cuda", lambda: False)
    spec = write_row(specs, model={"random": {"config": SMALL}})
    memory = items(tmp_path / "volume", spec)["memory", "for train"]
    assert memory.state == "there"
    assert "NVIDIA H" in memory.note


def test_an_answering_models_memory_is_that_of_its_shape_where_it_is_made_at_random(
    specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch)
    model = {"random": {"config": SMALL}}
    spec = write_row(specs, gen=None, train=None, model=model, eval=evaluation(specs))
    memory = items(tmp_path / "volume", spec)["memory", "for answer"]
    assert memory.state == "there"
    # Of each of two layers four matrices of attention and three of 128; the bytes' embeddings, twice.
    layers = 2 * (4 * 64 * 64 + 3 * 64 * 128)
    assert memory.bytes is not None
    assert 4 * layers < memory.bytes < 4 * (layers + 2 * 64 * 300 + 1000)


def test_a_wrong_file_among_the_given_data_is_told_as_one_fault_among_the_rest(
    specs: Path, tmp_path: Path
) -> None:
    parts = evaluation(specs, judge=PAID)
    parts["judge"]["reference"] = {"path": "data:base.json", "sha256": OF_EMPTY_LIST}
    spec = write_row(specs, eval=parts)
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "base.json").write_text("[1]")
    result = command("needs", spec, "--volume", tmp_path / "volume", "--json")
    assert result.exit_code == 1
    assert result.stderr == ""
    answers = {(i["kind"], i["name"]): i for i in json.loads(result.stdout)["items"]}
    assert answers["file", "data:base.json"]["state"] == "missing"
    assert "is not the file that the spec means" in answers["file", "data:base.json"]["note"]
    assert answers["key", "ROW_TEST_KEY"]["state"] == "missing"
    assert command("fetch", spec, "--volume", tmp_path / "volume").exit_code == 2


@pytest.mark.parametrize("verb", ["plan", "needs", "validate", "fetch"])
def test_a_row_may_be_named_by_its_id_wherever_its_spec_may(
    specs: Path, tmp_path: Path, verb: str
) -> None:
    write_row(specs)
    at = [] if verb == "validate" else ["--volume", tmp_path / "volume"]
    result = command(verb, "one", *at)
    assert result.exit_code in (0, 1), result.output
    assert result.stderr == ""
    unknown = command(verb, "onne", *at)
    assert unknown.exit_code == 2
    assert "there is no row 'onne' below specs/" in unknown.stderr
    assert "Near: one." in unknown.stderr


def test_an_answering_models_memory_is_that_of_its_weights_by_its_name(
    specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch)
    parts = evaluation(specs)
    whole = write_row(specs, "whole", gen=None, train=None, model={"hub": HUB}, eval=parts)
    assert items(tmp_path / "volume", whole)["memory", "for answer"].bytes == 28 * 10**9
    parts["answer"]["engine"] = {"kind": "transformers", "precision": "bfloat16"}
    spec = write_row(specs, gen=None, train=None, model={"hub": HUB}, eval=parts)
    memory = items(tmp_path / "volume", spec)["memory", "for answer"]
    assert memory.bytes == 14 * 10**9
    of_name = (
        "for the model's weights in bfloat16 alone, by its name, which may leave out embeddings"
    )
    assert memory.note.startswith(of_name)
    assert (
        f"; {HUB['id']} by name" in items(tmp_path / "volume", spec)["disk", "on the volume"].note
    )
    huge = {"id": "me/mine-9000B", "revision": "0" * 40}
    spec = write_row(specs, "huge", gen=None, train=None, model={"hub": huge}, eval=parts)
    assert items(tmp_path / "volume", spec)["memory", "for answer"].state == "missing"


@pytest.mark.parametrize(
    ("kind", "precision", "bytes_each"),
    [("llama", "float32", 4), ("llama", "bfloat16", 2), ("mystery", "float32", 4)],
)
def test_an_answering_models_memory_is_that_of_its_parameters_in_the_type_they_are_loaded_in(
    specs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    precision: str,
    bytes_each: int,
) -> None:
    """Whatever else lies in its folder, and in whatever type it is stored there."""
    give_gpus(monkeypatch)
    config = {**SMALL, "vocab_size": 64, "model_type": "llama", "dtype": "bfloat16"}
    shape = from_config(config)
    assert shape is not None
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**config, "model_type": kind}))
    (folder / "other-weights.bin").write_bytes(bytes(10**6))
    if kind == "mystery":
        matrix = torch.zeros(4, 8, dtype=torch.bfloat16)
        save_file({"model.layers.0.mlp.up.weight": matrix}, folder / "model.safetensors")
    parts = evaluation(specs)
    parts["answer"]["engine"] = {"kind": "transformers", "precision": precision}
    spec = write_row(specs, gen=None, train=None, model={"path": str(folder)}, eval=parts)
    memory = items(tmp_path / "volume", spec)["memory", "for answer"]
    assert memory.bytes == bytes_each * (32 if kind == "mystery" else shape.parameters)
    assert f"weights in {precision} alone; " in memory.note


def test_a_base_in_four_bits_is_told_as_that(
    specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch)
    model = {"random": {"config": SMALL}}
    row = {"model": model, "eval": evaluation(specs)}
    plain = items(tmp_path / "v", write_row(specs, "lora", train={"method": "lora"}, **row))
    qlora = items(tmp_path / "v", write_row(specs, "qlora", train={"method": "qlora"}, **row))
    whole, quantised = (of["memory", "for answer"] for of in (plain, qlora))
    assert "in 4 bits alone" in quantised.note
    assert 0 < (quantised.bytes or 0) < (whole.bytes or 0)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Qwen/Qwen1.5-0.5B", 10**9),
        ("meta-llama/Llama-2-13b-hf", 26 * 10**9),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 270 * 10**6),
        ("me/a3b5", None),
        ("70B/mine", None),
    ],
)
def test_a_models_size_is_read_from_its_name(name: str, size: int | None) -> None:
    assert size_by_name(name) == size


def test_the_models_of_the_studies_that_are_gated_are_known() -> None:
    assert is_gated("meta-llama/Llama-3.2-1B")
    assert not is_gated("Qwen/Qwen1.5-0.5B")


def test_time_is_spoken_in_the_unit_of_its_size() -> None:
    assert [spoken(s) for s in (5, 600, 36000)] == ["5 s", "10 min", "10.0 h"]


def test_a_server_that_nobody_has_named_is_no_want_of_memory(
    specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HARNESS_VLLM_URL", raising=False)
    parts = evaluation(specs)
    parts["answer"]["engine"] = {"kind": "vllm"}
    hub = {"id": "a/b", "revision": "0" * 40}
    spec = write_row(specs, model={"hub": hub}, gen=None, train=None, eval=parts)
    snapshot(Store(tmp_path / "volume").hub_folder(HubModel(**hub), False))
    needed = items(tmp_path / "volume", spec)
    assert needed["server", "vLLM"].state == "missing"
    assert "HARNESS_VLLM_URL" in needed["server", "vLLM"].advice
    assert ("memory", "for answer") not in needed


def test_files_of_one_name_are_told_apart_by_their_addresses_folders(
    specs: Path, tmp_path: Path
) -> None:
    parts = evaluation(specs)
    parts["answer"]["prompts"] = {
        "files": {
            name: {"url": f"https://example.com/a/{name}/set.jsonl", "sha256": digit * 64}
            for name, digit in (("koala", "1"), ("vicuna", "2"))
        }
    }
    names = [name for kind, name in items(tmp_path / "volume", write_row(specs, eval=parts))
             if kind == "file"]  # fmt: skip
    assert names == ["a/koala/set.jsonl", "a/vicuna/set.jsonl"]


@pytest.mark.parametrize("name", ["needs", "plan"])
def test_no_line_is_wider_than_the_columns_and_piped_none_is_broken(
    specs: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    parts = evaluation(specs)
    address = f"https://example.com/owner/name/raw/{'5' * 40}/{'long_' * 20}/set.jsonl"
    parts["answer"]["prompts"] = {"files": {"set": {"url": address, "sha256": "1" * 64}}}
    spec = write_row(specs, eval=parts, model={"hub": HUB}).relative_to(Path.cwd())
    for columns in ("", "60"):
        monkeypatch.setenv("COLUMNS", columns)
        lines = command(name, spec).stdout.splitlines()
        if columns:
            assert max(map(len, lines)) <= int(columns)
        else:
            assert not [line for line in lines if line.startswith(" " * 5)], (
                "a part of the one above"
            )
        needed = lines[lines.index("needs") + 1 :]
        advice = next(n for n, line in enumerate(needed) if "brought by" in line)
        kinds = ("file", "model", "key", "memory", "disk", "time")
        assert all(line[:21].isspace() or line.split()[0] in kinds for line in needed[:advice])
        text = " ".join(" ".join(lines).split())
        assert "set.jsonl example.com/owner/name model" in text
    assert address in command("needs", spec, "--json").stdout


@pytest.mark.parametrize(
    ("address", "short"),
    [
        ("https://example.com/owner/name/raw/5c6f/data/set.json", "example.com/owner/name"),
        ("https://example.com/datasets/me/name/resolve/5c/a.json", "example.com/datasets/me/name"),
        ("https://example.com/set.json", "example.com"),
        ("the hub", "the hub"),
        ("runs", "runs"),
    ],
)  # fmt: skip
def test_of_an_address_its_host_and_repository_are_shown(address: str, short: str) -> None:
    assert repository(address) == short


def test_what_deepspeed_compiles_on_first_use_is_foretold_until_it_is_compiled(
    specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gpus(monkeypatch)
    for name in ("XDG_CACHE_HOME", "TORCH_EXTENSIONS_DIR", "HARNESS_CACHE", "CXX"):
        monkeypatch.delenv(name, raising=False)
    spec, volume = write_row(specs, train={"deepspeed": {"stage": 2}}), tmp_path / "volume"
    compiles = "compiles DeepSpeed's deepspeed_shm_comm, once"
    line = f"compiler there     C++  {compiles}"
    assert line in command("needs", spec, "--volume", volume).stdout
    assert line in command("plan", spec, "--volume", volume).stdout
    assert compiles not in command("needs", spec, "--executor", "docker").stdout
    monkeypatch.setenv("CXX", "nope++")
    assert f"compiler missing   C++  {compiles}" in command("needs", spec).stdout
    python = f"py{sys.version_info.major}{sys.version_info.minor}_cpu"
    compiled = volume / "cache" / "libraries" / "cache" / "torch_extensions" / python
    (compiled / "deepspeed_shm_comm").mkdir(parents=True)
    (compiled / "deepspeed_shm_comm" / "deepspeed_shm_comm.so").touch()
    assert compiles not in command("needs", spec, "--volume", volume).stdout
