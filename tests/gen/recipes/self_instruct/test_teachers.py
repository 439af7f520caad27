"""Steps of self_instruct with a teacher of their own: who is asked, what it costs, what is planned."""

import asyncio
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from harness.artefact.call import StageCall
from harness.artefact.keys import Files, key_view
from harness.artefact.store import Store
from harness.errors import HarnessError, InputError
from harness.gen import run as gen
from harness.gen.card import card, text
from harness.gen.recipes.self_instruct import SelfInstructGen
from harness.llm.client import Client
from harness.llm.reply import Reply
from harness.llm.transcript import Transcript
from harness.row.load import load_rows
from harness.row.twin import scaled
from harness.run.ready import check_stage
from harness.run.runner import Runner
from harness.spec.base import Endpoint
from tests.gen.recipes.self_instruct.test_recipe import (
    SPECS,
    make,
    make_call,
    outcome,
    prompt_of,
    rows,
    run,
    teacher,
)
from tests.helpers import InstantExecutor, command, planned, planner, write_row
from tests.llm.batch_server import BatchServer
from tests.llm.fake_server import FakeServer, ask, echo

CHEAP = {"prompt": 1000.0, "completion": 2000.0, "batch_share": 0.5, "dated": "2026-01-01"}
DEAR = {"prompt": 3000.0, "completion": 6000.0, "batch_share": 0.5, "dated": "2026-01-01"}
"""At these a call of a scripted server (10 and 5 tokens) costs $0.02 and $0.06."""


pytestmark = pytest.mark.usefixtures("short_waits")


@pytest.fixture
def lister() -> Iterator[FakeServer]:
    with FakeServer(teacher()) as server:
        yield server


@pytest.fixture
def labeller() -> Iterator[FakeServer]:
    with FakeServer(teacher()) as server:
        yield server


def two_teachers(folder: Path, lister: FakeServer, labeller: FakeServer, **more: Any) -> StageCall:
    """A chat model makes instructions, one of completions does the rest."""
    own = {"teacher": labeller.endpoint(model="labeller").model_dump(), "api": "completion"}
    step = {f"{name}__{k}": v for name in ("classification", "instances") for k, v in own.items()}
    call = make_call(folder, lister.endpoint(model="lister"), **(step | more))
    return replace(call, prices={"lister": CHEAP, "labeller": DEAR})  # type: ignore[dict-item]


def test_each_step_asks_its_own_teacher_in_its_own_way_and_one_transcript_says_which(
    tmp_path: Path, lister: FakeServer, labeller: FakeServer
) -> None:
    call = two_teachers(tmp_path, lister, labeller)
    result = gen.run(call)
    listed = {prompt_of(body).split()[0] for body in lister.requests}
    labelled = {prompt_of(body).split()[0] for body in labeller.requests}
    assert (listed, labelled) == ({"LIST"}, {"KIND", "INPUTS", "LABELS"})
    assert all("messages" in body for body in lister.requests)
    assert not any("messages" in body for body in labeller.requests)
    records = rows(call.folder, "transcript.jsonl")
    models = [record["request"]["model"] for record in records]
    assert models.count("lister") == len(lister.requests)
    assert models.count("labeller") == len(labeller.requests)
    steps = {name: rows(call.folder, f"{name}.jsonl") for name in ("instructions", "instances")}
    assert {models[row["request"]] for row in steps["instructions"]} == {"lister"}
    assert {models[row["request"]] for row in steps["instances"]} == {"labeller"}
    assert result.cost["calls"] == len(records)


def test_each_models_calls_cost_its_own_price_in_manifest_and_card(
    tmp_path: Path, lister: FakeServer, labeller: FakeServer
) -> None:
    call = two_teachers(tmp_path, lister, labeller)
    result = gen.run(call)
    a, b = len(lister.requests), len(labeller.requests)
    assert result.cost["usd"] == pytest.approx(0.02 * a + 0.06 * b)
    each = result.used["cost_of_each"]
    assert each["lister"] == {
        "calls": a, "attempts": a, "prompt_tokens": 10 * a, "completion_tokens": 5 * a,
        "usd": pytest.approx(0.02 * a),
    }  # fmt: skip
    assert each["labeller"]["usd"] == pytest.approx(0.06 * b)
    [section] = [s for s in text.sections(json.loads((call.folder / "card.json").read_text()))
                 if s.title == "Teachers"]  # fmt: skip
    assert section.rows == [
        ("lister", "instructions", str(a), str(10 * a), str(5 * a)),
        ("labeller", "classification, instances", str(b), str(10 * b), str(5 * b)),
    ]
    without = replace(two_teachers(tmp_path / "b", lister, labeller), prices={"lister": CHEAP})  # type: ignore[dict-item]
    assert "usd" not in gen.run(without).cost


def test_the_card_of_one_teacher_says_nothing_of_several(tmp_path: Path) -> None:
    made, _, folder = run(tmp_path)
    measured = card.measure(StageCall("gen", "k", {}, {}, str(folder)), "self_instruct", made)
    assert "teachers" not in measured
    assert "Teachers" not in [section.title for section in text.sections(measured)]


@pytest.mark.parametrize("limit", [{"calls": 8.0}, {"usd": 0.9}])
def test_one_budget_holds_over_both_and_a_stopped_run_goes_on_without_paying_twice(
    tmp_path: Path, lister: FakeServer, labeller: FakeServer, limit: dict[str, float]
) -> None:
    limits = {"instructions__sampling": {"max_tokens": 5}, "instances__max_tokens": 5}
    limits |= {"instances__max_tokens_classification": 5}  # type: ignore[dict-item]
    whole = two_teachers(tmp_path / "whole", lister, labeller, **limits)
    expected = outcome(make(whole), whole.folder)
    needed = len(lister.requests), len(labeller.requests)
    lister.requests.clear()
    labeller.requests.clear()
    stopped = two_teachers(tmp_path / "stopped", lister, labeller, **limits)
    stopped.budget.update(limit)
    with pytest.raises(HarnessError, match="budget"):
        make(stopped)
    a, b = len(lister.requests), len(labeller.requests)
    if "calls" in limit:
        assert a + b == 8
    else:
        # The next call of the dear model may cost more than its 6 cents: its prompt at 2 bytes a token.
        assert 0.6 < 0.02 * a + 0.06 * b <= 0.9
    assert a
    assert b
    stopped.budget.clear()
    assert outcome(make(stopped), stopped.folder) == expected
    assert (len(lister.requests), len(labeller.requests)) == needed


def test_a_replay_takes_both_models_replies_from_the_transcript(
    tmp_path: Path, lister: FakeServer, labeller: FakeServer
) -> None:
    call = two_teachers(tmp_path, lister, labeller)
    first = gen.run(call)
    files = {name: (call.folder / name).read_bytes() for name in ("data.jsonl", "card.json")}
    asked = len(lister.requests) + len(labeller.requests)
    again = gen.run(replace(call, replay=True))
    assert {name: (call.folder / name).read_bytes() for name in files} == files
    assert again.counts == first.counts
    assert again.cost["replayed_calls"] == asked == len(lister.requests) + len(labeller.requests)


def test_a_recorded_transcript_stands_for_both(
    tmp_path: Path, lister: FakeServer, labeller: FakeServer
) -> None:
    call = two_teachers(tmp_path / "a", lister, labeller)
    expected = outcome(make(call), call.folder)
    asked = len(lister.requests) + len(labeller.requests)
    recorded = {"path": str(call.folder / "transcript.jsonl")}
    other = two_teachers(tmp_path / "b", lister, labeller, transcript=recorded)
    assert outcome(make(other), other.folder) == expected
    assert asked == len(lister.requests) + len(labeller.requests)
    spec = SelfInstructGen.model_validate(other.params["gen"])
    assert spec.needs().is_recorded
    assert not spec.needs().endpoints


def test_a_missing_price_or_key_of_either_is_found_before_any_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def opened(first: Client) -> None:
        async with first:
            pass

    with FakeServer(echo) as server:
        client = Client(server.endpoint(), tmp_path / "t.jsonl", {"usd": 1}, CHEAP)
        client.beside(server.endpoint(model="n"))
        with pytest.raises(InputError, match="the price of n is not known"):
            asyncio.run(opened(client))
        monkeypatch.delenv("SECOND_KEY", raising=False)
        client = Client(server.endpoint(), tmp_path / "u.jsonl")
        client.beside(server.endpoint(model="n", api_key_env="SECOND_KEY"))
        with pytest.raises(InputError, match="SECOND_KEY"):
            asyncio.run(opened(client))
        assert not server.requests


def test_batches_of_one_and_live_calls_of_the_other_know_their_own_calls_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def by(live: FakeServer, batched: BatchServer) -> tuple[list[Reply], list[Reply], float]:
        async def answered() -> tuple[list[Reply], list[Reply], float]:
            client = Client(live.endpoint(), tmp_path / "t.jsonl", {"usd": 50}, CHEAP)
            other = client.beside(batched.endpoint(model="n"), DEAR)
            bodies = [ask(str(i), max_tokens=5) for i in range(4)]
            async with client:
                replies = await client.gather(bodies), await other.gather(bodies)
            return *replies, client.cost()["usd"]

        return asyncio.run(answered())

    with FakeServer(echo) as live, BatchServer(echo) as batched:
        first, second, usd = by(live, batched)
        assert [r.text for r in first] == [r.text for r in second]
        assert usd == pytest.approx(4 * 0.02 + 4 * 0.06 / 2)
        assert "an earlier try sent" not in capsys.readouterr().out
        by(live, batched)
        assert (len(live.requests), len(batched.requests)) == (4, 4)
    ledgers = sorted(path.name for path in tmp_path.glob("*.batches.jsonl"))
    assert len(ledgers) == 1
    assert ledgers != ["t.batches.jsonl"]


def test_the_simulated_models_of_both_are_started_and_marked(tmp_path: Path) -> None:
    own = {"teacher": {"model": "other", "simulated": {"seed": 3}}}
    [loaded] = load_rows([SPECS / "smoke/data_self_instruct.yaml"])
    assert loaded.row.gen is not None
    spec = loaded.row.gen[0].model_dump(mode="json")
    spec["seeds"] = {"path": str(Path(spec["seeds"]["path"]).absolute())}
    for name in ("classification", "instances"):
        spec[name] |= own
    spec["instructions"]["count"] = 5
    call = StageCall("gen", "k", {"gen": spec}, {}, str(tmp_path), budget={"usd": 1.0})
    result = gen.run(call)
    assert result.simulated == ["teacher"]
    assert result.cost["usd"] == 0
    transcript = Transcript(tmp_path / "transcript.jsonl")
    assert {record["request"]["model"] for _, record in transcript.records()} == {
        "teacher",
        "other",
    }


def spec_of(folder: Path, **steps: Any) -> Path:
    parts: dict[str, Any] = {
        "recipe": "self_instruct",
        "teacher": {"model": "lister", "api_key_env": "LISTER_KEY"},
        "seeds": "seeds.jsonl",
        "instructions": {"count": 10, "prompt": "list.txt", "shown": 1},
        "classification": {"prompt": "prompt.txt"},
        "instances": {"output_first": "prompt.txt", "input_first": "prompt.txt"},
    }
    for name, part in steps.items():
        parts[name] = parts.get(name, {}) | part
    folder.mkdir(exist_ok=True)
    (folder / "list.txt").write_text("{examples} {next}")
    return write_row(folder, gen=parts, train=None, model=None, template=None)


OWN = {"teacher": {"model": "labeller", "api_key_env": "LABELLER_KEY"}}


def test_a_step_without_a_teacher_of_its_own_leaves_the_key_as_it_was_and_one_with_it_does_not(
    tmp_path: Path,
) -> None:
    call = make_call(tmp_path, Endpoint(model="m"))
    spec = SelfInstructGen.model_validate(call.params["gen"])
    view = key_view(spec, Files(None, None))
    assert "teacher" not in view["instances"]
    assert "api" not in view["classification"]
    [plain] = planned(tmp_path / "v", spec_of(tmp_path / "specs"))
    [own] = planned(tmp_path / "v", spec_of(tmp_path / "specs", instances=OWN))
    assert plain.stages[0].key != own.stages[0].key
    assert own.stages[0].document["params"]["gen"]["instances"]["teacher"]["model"] == "labeller"


def test_a_plan_prices_each_models_calls_and_names_the_one_without_a_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(tmp_path / "specs", instances=OWN)
    table = tmp_path / "prices.yaml"

    def plan(**prices: dict[str, float]) -> Any:
        table.write_text(json.dumps({"dated": "2026-01-02", "source": "x", "models": prices}))
        monkeypatch.setenv("HARNESS_PRICES", str(table))
        return command("plan", "--volume", tmp_path / "runs", spec).output

    alone = [
        plan(lister={"prompt": a, "completion": a}, labeller={"prompt": b, "completion": b})
        for a, b in ((1000, 0), (0, 1000), (1000, 1000))
    ]
    usd = [float(said.split("$")[1].split()[0].rstrip("\n")) for said in alone]
    assert 0 < usd[0] < usd[2]
    assert 0 < usd[1] < usd[2]
    assert usd[0] + usd[1] == pytest.approx(usd[2], abs=0.02)
    said = " ".join(plan(lister={"prompt": 1000, "completion": 1000}).split())
    assert f"${usd[0]:.2f} and more: the price of labeller is not known" in said
    assert f", ${usd[0]:.2f} and what labeller costs" in said


def test_both_keys_are_needed_and_handed_to_the_stage_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(tmp_path / "specs", instances=OWN, classification=OWN)
    monkeypatch.delenv("LABELLER_KEY", raising=False)
    monkeypatch.setenv("LISTER_KEY", "sk-of-a-test")
    said = command("needs", spec, "--volume", tmp_path / "runs").output
    assert "LABELLER_KEY" in said
    assert "LISTER_KEY" in said
    store = Store(tmp_path / "runs")
    store.prepare()
    [plan] = planned(store.root, spec)
    with pytest.raises(InputError, match="LABELLER_KEY is not set"):
        check_stage(plan.stages[0], (), store, "local")
    runner = Runner(store, Files(None, None), InstantExecutor(), Console(file=io.StringIO()))
    job = runner.job(plan.stages[0], "t", {}, tmp_path, 0, tmp_path / "log")
    assert job.secrets == ("LABELLER_KEY", "LISTER_KEY")
    assert runner.job(plan.stages[0], "t", {}, tmp_path, 0, tmp_path, replay=True).secrets == ()


def test_a_twin_simulates_both_and_says_so(tmp_path: Path) -> None:
    [loaded] = load_rows([spec_of(tmp_path / "specs", instances=OWN)])
    twin = scaled(loaded)
    assert twin.row.gen is not None
    needed = twin.row.gen[0].needs().endpoints
    assert [e.model for e in needed] == ["lister", "labeller"]
    assert all(e.simulated for e in needed)
    words = list(loaded.row.gen[0].replaced())  # type: ignore[index]
    assert "a simulated teacher for lister" in words
    assert "a simulated teacher for labeller" in words
    [plan] = [planner(tmp_path / "v").plan(twin)]
    assert not plan.stages[0].pays


def test_two_ways_to_the_same_model_are_refused(tmp_path: Path) -> None:
    same = {"teacher": {"model": "m", "base_url": "http://h/v1", "mode": "batch"}}
    with FakeServer(teacher()) as server:
        same["teacher"]["base_url"] = server.endpoint().base_url or ""
        with pytest.raises(ValidationError, match="two steps ask m at the same server with other"):
            make_call(tmp_path, server.endpoint(), instances__teacher=same["teacher"])
        again = {"instances__teacher": server.endpoint().model_dump()}
        slash = {"base_url": f"{server.endpoint().base_url}/"}
        with pytest.raises(ValidationError, match="a slash at the end of base_url"):
            make_call(
                tmp_path, server.endpoint(), instances__teacher=again["instances__teacher"] | slash
            )
        call = make_call(tmp_path, server.endpoint(), **again)
        spec = SelfInstructGen.model_validate(call.params["gen"])
        assert len(spec.needs().endpoints) == 1
