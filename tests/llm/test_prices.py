"""Prices of calls, what a plan says they come to, and a budget in dollars."""

import json
import os
from pathlib import Path

import pytest
import yaml

from harness.errors import InputError
from harness.llm import prices
from harness.spec.base import Endpoint
from tests.helpers import command, evaluation, write_row

ROOT = Path(__file__).parents[2]


PRICED = "dated: 2026-01-01\nsource: x\nmodels:\n  m: {}"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(
        "dated: 2026-01-02\nsource: a test\nmodels:\n  teacher: {prompt: 2, completion: 8}\n"
    )
    monkeypatch.setenv("HARNESS_PRICES", str(path))
    return path


def test_tokens_cost_what_the_table_says_for_a_million_and_a_batch_half_of_it(table: Path) -> None:
    price = prices.load().of(Endpoint(model="teacher"))
    assert price is not None
    assert price.usd(1_000_000, 500_000) == 6
    assert price.usd(1_000_000, 500_000, batch=True) == 3


@pytest.mark.parametrize("model", ["another", "teacher"])
def test_a_model_without_a_price_has_none_and_a_simulated_one_is_free_by_any_name(
    table: Path, model: str
) -> None:
    known = prices.load()
    assert known.of(Endpoint(model="another")) is None
    free = known.of(Endpoint(model=model, simulated={}))
    assert free is not None
    assert free.usd(10**9, 10**9) == 0


def planned(folder: Path, *specs: Path) -> str:
    """What a plan prints, as one line."""
    return " ".join(command("plan", "--volume", folder / "runs", *specs).output.split())


def test_a_simulated_teacher_with_a_priced_name_is_planned_at_no_cost(
    tmp_path: Path, table: Path
) -> None:
    spec = priced_row(tmp_path / "specs", teacher={"model": "teacher", "simulated": {}})
    said = planned(tmp_path, spec)
    assert "about 100 calls, 6,600 prompt + 120,000 completion tokens, $0" in said
    assert "prices dated" not in said


def test_the_table_that_is_shipped_can_be_read() -> None:
    shipped = prices.load(ROOT / "specs" / "prices.yaml")
    assert shipped.dated
    assert all(p.completion >= p.prompt > 0 for p in shipped.models.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: {}", "dated: Field required"),
        (
            "dated: 2026-01-01\nsource: x\nmodels: {m: {prompt: -1, completion: 1}}",
            "models.m.prompt",
        ),
        ("dated: 2026-01-01\nsource: x\nmodels: {m: {prompt: 1}}", "models.m.completion"),
        ("a: [", "cannot be read"),
        ("- 1", "prices.yaml"),
        ("", "prices.yaml:1:1: a table of prices is a mapping"),
        ("dated: 2026-02-30", r"prices.yaml:1:8: .*'2026-02-30' is not what its tag says"),
        ("dated: 2026-02-20 25:61:61", "prices.yaml:1:8: .*is not what its tag says"),
        ("dated: 1" + ":00" * 400 + ".5", "prices.yaml:1:8: .*is not what its tag says"),
        ("dated: " + "1" * 5000, "prices.yaml:1:8: .*is not what its tag says"),
        ("dated: !!float abc", "prices.yaml:1:8: .*is not what its tag says"),
        ("dated: " + "[" * 3000, "prices.yaml:1:57: .*nested more than 50 levels deep"),
        ("dated: \x07", "prices.yaml:1:8: .*it holds the character"),
        (PRICED.format("{prompt: true, completion: 1}"), "4:7: models.m.prompt: .* valid number"),
        (PRICED.format("{prompt: '1', completion: 1}"), "4:7: models.m.prompt: .* valid number"),
        (PRICED.format("{prompt: 1.0e+308, completion: 1}"), "models.m.prompt: .* to 10000"),
        (PRICED.format("{prompt: 1, completion: .nan}"), "models.m.completion: .*finite"),
        (PRICED.format("{prompt: 1, completion: 1}\n  m: {prompt: 2, completion: 2}"),
         "prices.yaml:5:3: 'm' is given twice"),
    ],
)  # fmt: skip
def test_a_faulty_table_is_named_with_its_fault(table: Path, text: str, said: str) -> None:
    table.write_text(text)
    with pytest.raises(InputError, match=said):
        prices.load()


def test_a_table_that_was_named_and_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_PRICES", str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match="is not there"):
        prices.load()


def test_a_pipe_and_a_link_that_leads_nowhere_are_refused_in_the_place_of_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_PRICES", raising=False)
    place = tmp_path / "specs" / "prices.yaml"
    place.parent.mkdir()
    place.symlink_to("none.yaml")
    with pytest.raises(InputError, match=r"specs/prices\.yaml is a link that leads nowhere"):
        prices.load()
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(InputError, match=r"specs/prices\.yaml is no regular file"):
        prices.load()


def test_the_table_of_the_checkout_holds_in_every_folder_that_has_none_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_PRICES", raising=False)
    shipped = ROOT / "specs" / "prices.yaml"
    assert prices.table_file() == shipped
    assert prices.load() == prices.load(shipped)
    monkeypatch.setenv("HARNESS_PRICES", "")
    assert prices.table_file() == shipped
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "prices.yaml").write_text(PRICED.format("{prompt: 1, completion: 1}"))
    assert list(prices.load().models) == ["m"]


def test_where_there_is_no_table_no_price_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_PRICES", raising=False)
    monkeypatch.setattr(prices, "root", lambda: tmp_path)
    assert prices.load().models == {}


@pytest.mark.parametrize("service", ["gen", "train", "fetch", "eval"])
def test_compose_gives_each_service_the_table_that_was_named(service: str) -> None:
    part = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"][service]
    (mount,) = [v for v in part["volumes"] if isinstance(v, dict)]
    assert mount["source"] == "${HARNESS_PRICES:-./specs/prices.yaml}"
    assert mount["target"] == part["environment"]["HARNESS_PRICES"]
    assert mount["read_only"] is True


def priced_row(folder: Path, **gen: object) -> Path:
    spec = write_row(folder)
    tree = yaml.safe_load(spec.read_text())
    tree["gen"] |= {"examples": 2000, "teacher": {"model": "teacher"}, **gen}
    spec.write_text(yaml.safe_dump(tree))
    return spec


def test_a_plan_says_calls_tokens_and_dollars_and_of_when_the_prices_are(
    tmp_path: Path, table: Path
) -> None:
    spec = priced_row(tmp_path / "specs")
    said = planned(tmp_path, spec)
    # 100 replies of 20 tasks of 60 tokens; a shown task of 60 and a prompt of 6 tokens.
    assert "about 100 calls, 6,600 prompt + 120,000 completion tokens, $0.97" in said
    assert "(prices dated 2026-01-02)" in said


def test_a_batch_is_planned_at_half_the_price(tmp_path: Path, table: Path) -> None:
    spec = priced_row(tmp_path / "specs", teacher={"model": "teacher", "mode": "batch"})
    assert "completion tokens, $0.49" in command("plan", "--volume", tmp_path / "v", spec).output


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("{usd: 0.05}", "exceeds the budget of $0.05 for a stage"),
        ("{calls: 99, tokens: 126599}", "exceeds the budget of 99 calls and 126,599 tokens for a"),
        ("{usd: 1.5, calls: 100, tokens: 126600}", ""),
    ],
)
def test_a_plan_says_which_budget_a_stage_is_expected_to_pass(
    tmp_path: Path, table: Path, budget: str, said: str
) -> None:
    spec = priced_row(tmp_path / "specs")
    spec.write_text(spec.read_text() + f"budget: {budget}\n")
    plan = " ".join(command("plan", "--volume", tmp_path / "runs", spec).output.split())
    assert said in plan
    assert ("exceeds" in plan) == bool(said)


def test_a_step_with_a_given_transcript_is_planned_without_calls_or_dollars(
    tmp_path: Path, table: Path
) -> None:
    spec = priced_row(tmp_path / "specs", transcript="seeds.jsonl")
    spec.write_text(spec.read_text() + "budget: {calls: 1}\n")
    plan = " ".join(command("plan", "--volume", tmp_path / "runs", spec).output.split())
    assert "replies from a given transcript" in plan
    assert "calls" not in plan
    assert "$" not in plan
    assert "exceeds" not in plan


def test_a_plan_says_whose_price_is_not_known(tmp_path: Path, table: Path) -> None:
    spec = priced_row(tmp_path / "specs", teacher={"model": "another"})
    said = planned(tmp_path, spec)
    assert "the price of another is not known" in said
    assert "and what another costs, whose price is not known" in said


def test_a_plan_says_once_that_a_models_price_is_not_known(tmp_path: Path, table: Path) -> None:
    spec = priced_row(tmp_path / "specs", teacher={"model": "another"})
    spec.write_text(spec.read_text() + "budget: {usd: 5}\n")
    other = spec.with_name("two.yaml")
    other.write_text(spec.read_text().replace("row: one", "row: two").replace("2000", "2100"))
    said = planned(tmp_path, spec, other)
    assert said.count("the price of another is not known") == 1
    assert said.count("no known price: add it to") == 1
    assert said.count("tokens, price not known") == 1


def test_a_budget_in_dollars_for_a_model_without_a_price_is_refused_before_anything_runs(
    tmp_path: Path, table: Path
) -> None:
    spec = priced_row(tmp_path / "specs", teacher={"model": "another"})
    spec.write_text(spec.read_text() + "budget: {usd: 5}\n")
    (line,) = [n for n, text in enumerate(spec.read_text().splitlines(), 1) if "budget:" in text]
    named = f"{table}, which HARNESS_PRICES names"
    for name in ("run", "plan"):
        done = command(name, "--volume", tmp_path / "runs", spec)
        assert done.exit_code == 2
        assert f"{spec}:{line}:10: row one: there is a budget in dollars" in done.stderr
        assert "the price of another, which the gen stage calls, is not known" in done.stderr
        assert f"Add it to {named}." in done.stderr.replace("\n", " ")
    # A path may be longer than a line.
    said = planned(tmp_path, spec).replace(" ", "")
    assert f"no known price: add it to {named}, to run this".replace(" ", "") in said
    needs = command("needs", "--json", "--volume", tmp_path / "runs", spec)
    assert needs.exit_code == 1
    items = json.loads(needs.stdout)["items"]
    (price,) = [item for item in items if item["kind"] == "price"]
    assert (price["name"], price["state"]) == ("of another", "missing")
    assert price["advice"] == f"add it to {named}"
    # All of them are asked for at once, of all rows.
    judged = evaluation(tmp_path / "specs", {"model": "third", "api_key_env": None})
    other = write_row(tmp_path / "specs", "two", eval=judged)
    other.write_text(other.read_text() + "budget: {usd: 5}\n")
    done = command("run", "--volume", tmp_path / "runs", spec, other)
    assert "row one: there is a budget in dollars, and the price of another, " in done.stderr
    assert (
        "row two: there is a budget in dollars, and the price of third, which the " in done.stderr
    )


@pytest.mark.parametrize("stage", ["gen", "judge"])
def test_validate_refuses_a_budget_in_dollars_with_a_model_of_no_known_price(
    tmp_path: Path, table: Path, stage: str
) -> None:
    folder, unpriced = tmp_path / "specs", {"model": "unpriced", "api_key_env": None}
    if stage == "gen":
        spec = priced_row(folder, teacher=unpriced)
    else:
        spec = write_row(folder, eval=evaluation(folder, unpriced))
    spec.write_text(spec.read_text() + "budget:\n  usd: 5\n")
    (line,) = [n for n, t in enumerate(spec.read_text().splitlines(), 1) if "usd:" in t]
    done = command("validate", spec)
    assert done.exit_code == 2
    assert (
        f"{spec}:{line}:3: there is a budget in dollars, and the price of unpriced, which the {stage} "
        "stage calls, is not known\n"
    ) in done.stderr
    assert f"Add it to {table}, which HARNESS_PRICES names." in done.stderr
    table.write_text(table.read_text() + "  unpriced: {prompt: 1, completion: 1}\n")
    assert command("validate", spec).exit_code == 0
