"""A number of another judge: against the study's own answers under ours, and by a bridge."""

import csv
import hashlib
import html
import json
import math
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.audit import audit_paths
from harness.errors import InputError
from harness.results.verdict import outlook
from harness.results.verdict.verdict import assess
from harness.row.load import load_rows
from harness.row.reported import PublishedJudge
from harness.run.bridging import read_verdicts
from harness.stats.bridge import Predicted, Shift, predict
from tests.helpers import ROOT, command, evaluation, planner
from tests.results.scored_rows import Scored, scored_row, wins

OTHER = {"model": "gpt-3.5-turbo-0301", "annotator": "chatgpt", "baseline": "prompts"}
PROMPTS = 2000
ASKED = "Say no."
"""The prompt of the rows of these tests; what was judged is made up."""


def given(path: Path, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """A file of the row's, with its digest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return {"path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def outputs(folder: Path, name: str) -> dict[str, str]:
    rows = [{"instruction": f"prompt {n}", "output": f"{name} {n}"} for n in range(PROMPTS)]
    rows.append({"instruction": ASKED, "output": "No."})
    return given(folder / "specs" / f"{name}.json", rows)


def annotations(
    folder: Path, name: str, verdicts: Sequence[float], **changes: Any
) -> dict[str, str]:
    rows = [
        {"instruction": f"prompt {n}", "output_2": f"{name} {n} ", "preference": verdict,
         "annotator": "chatgpt", "generator_1": "prompts"} | changes
        for n, verdict in enumerate(verdicts)
    ]  # fmt: skip
    return given(folder / "specs" / f"{name}-annotations.json", rows)


def row(folder: Path, *judgings: Sequence[float], value: float = 40.0, **reported: Any) -> Path:
    cell = {"value": value, "standard_error": 0.3}
    numbers = {"judge": OTHER, "win_rate": cell} | reported
    replicates = {"judge": 1}
    parts = {}
    if "bridge" in reported:
        parts["eval"] = asked_of_a_bridge(folder / "specs")
    return scored_row(folder, *judgings, reported=numbers, replicates=replicates, **parts)


def asked_of_a_bridge(specs: Path) -> dict[str, Any]:
    """The `eval` part of a row that asks the prompts of these tests."""
    parts, prompts = evaluation(specs), specs / "asked" / "prompts.jsonl"
    rows = [{"instruction": f"prompt {n}", "output": "no"} for n in range(PROMPTS)]
    prompts.parent.mkdir(exist_ok=True)
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts["answer"]["prompts"] = {"file": "asked/prompts.jsonl"}
    parts["judge"]["reference"] = "asked/prompts.jsonl"
    return parts


def verified(folder: Path, spec: Path, *more: str) -> Any:
    return command("verify", spec, "--volume", folder / "runs", "--executor", "local", *more)


def words(folder: Path, spec: Path) -> str:
    return " ".join(verified(folder, spec).output.split())


def metric(folder: Path, spec: Path) -> dict[str, Any]:
    (found,) = json.loads(verified(folder, spec, "--json").output)["metrics"]
    assert isinstance(found, dict)
    return found


def test_ours_and_their_own_answers_under_one_judge_give_the_verdict(tmp_path: Path) -> None:
    """Ours is 15 points from the published number, and half a point from what our judge says of the
    published answers: it is reproduced, and how far the judges differ is said."""
    ours, theirs = wins(510, PROMPTS), wins(500, PROMPTS)
    spec = row(tmp_path, ours, theirs, outputs=outputs(tmp_path, "published"))
    found = metric(tmp_path, spec)
    assert found["verdict"] == "reproduced"
    assert found["published_answers"]["theirs"] == 25
    assert found["published_answers"]["prompts"] == PROMPTS
    assert found["difference"]["value"] == pytest.approx(0.5)
    # Ten prompts of 2,000 differ, all one way: the interval is that of the paired differences.
    error = 100 * math.sqrt(10 / PROMPTS * (1 - 10 / PROMPTS) / PROMPTS)
    assert found["difference"]["high"] == pytest.approx(0.5 + 1.96 * error, abs=0.05)
    text = words(tmp_path, spec)
    assert (
        "the judge of ours gives the study's own answers 25.00, 15.00 below the published" in text
    )
    assert "ours - the study's own answers, under the same judge" in text
    assert verified(tmp_path, spec).exit_code == 0


def test_what_a_pair_of_trainings_leaves_open_is_no_more_than_a_difference_can_be(
    tmp_path: Path,
) -> None:
    spec = scored_row(
        tmp_path, wins(0, 4), wins(4, 4), wins(2, 4),
        trained=True,
        reported={"judge": OTHER, "win_rate": 40, "outputs": outputs(tmp_path, "published")},
        replicates={"train_seeds": [1, 2]},
    )  # fmt: skip
    difference = metric(tmp_path, spec)["difference"]
    assert (difference["low"], difference["high"]) == (-100, 100)


def test_that_prompts_are_the_same_is_counted_against_their_own_answers(tmp_path: Path) -> None:
    ours, theirs = wins(510, PROMPTS), wins(500, PROMPTS)
    spec = row(tmp_path, ours, theirs, outputs=outputs(tmp_path, "published"))
    assert "not counted" not in words(tmp_path, spec)


def test_what_would_make_another_judges_number_comparable_is_said(tmp_path: Path) -> None:
    text = words(tmp_path, row(tmp_path, wins(510, PROMPTS)))
    assert "to decide it the study's own answers, judged by our judge (reported.outputs)" in text


@pytest.mark.parametrize(
    ("rows", "message", "hint"),
    [
        ([{"instruction": "another", "output": "x"}], "lacks outputs for 1 of 1 prompts",
         "Give outputs on this prompt set, or prompts that the file answers."),
        ([{"instruction": ASKED, "output": text} for text in "xy"], "a second, other output",
         "Given outputs are one for each prompt."),
    ],
)  # fmt: skip
def test_a_fault_of_their_own_answers_is_told_as_theirs(
    tmp_path: Path, rows: list[dict[str, str]], message: str, hint: str
) -> None:
    published = given(tmp_path / "specs" / "published.json", rows)
    spec = row(tmp_path, outputs=published)
    for words_of in (("validate", spec), ("plan", spec, "--volume", tmp_path / "runs")):
        result = command(*words_of)
        assert result.exit_code == 2, words_of
        text = " ".join(result.output.split())
        assert message in text, words_of
        assert text.endswith(hint), words_of
        assert "published.json" in text


def test_far_from_their_own_answers_it_is_not_reproduced(tmp_path: Path) -> None:
    spec = row(
        tmp_path, wins(800, PROMPTS), wins(500, PROMPTS), outputs=outputs(tmp_path, "published")
    )
    assert metric(tmp_path, spec)["verdict"] == "not reproduced"
    assert verified(tmp_path, spec).exit_code == 3


def test_unjudged_prompts_of_theirs_widen_it(tmp_path: Path) -> None:
    theirs: list[float | None] = [*wins(500, PROMPTS)[:-100], *[None] * 100]
    spec = row(tmp_path, wins(510, PROMPTS), theirs, outputs=outputs(tmp_path, "published"))
    found = metric(tmp_path, spec)
    assert found["verdict"] == "inconclusive"
    assert found["published_answers"]["prompts"] == PROMPTS - 100
    assert found["difference"]["high"] - found["difference"]["low"] > 10


def test_where_theirs_are_not_judged_yet_it_says_what_does_it(tmp_path: Path) -> None:
    published = outputs(tmp_path, "published")
    row(tmp_path, wins(510, PROMPTS))
    # The same row, whose published answers are named only now.
    numbers = {"judge": OTHER, "win_rate": {"value": 40.0}, "outputs": published}
    spec = scored_row(tmp_path, reported=numbers, replicates={"judge": 1})
    assert metric(tmp_path, spec)["verdict"] == "not comparable: another judge"
    found = words(tmp_path, spec)
    assert "the study's own answers are not judged yet" in found
    assert f"2 stages of it not made yet: harness run {spec}" in found


@pytest.mark.parametrize("own", ["the file", "other bytes", "JSON lines"])
def test_the_studys_own_answers_are_not_held_against_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    specs = tmp_path / "specs"
    parts, published = evaluation(specs), outputs(tmp_path, "published")
    parts["answer"]["engine"] = {"kind": "reference", "outputs": "published.json"}
    alike = ""
    if own == "other bytes":
        parts["answer"]["engine"]["outputs"] = copied(specs / "published.json", PROMPTS // 10)
        alike = f" ({PROMPTS - PROMPTS // 10 + 1} of {PROMPTS + 1} answers are the same"
    if own == "JSON lines":
        rows = json.loads((specs / "published.json").read_text())
        (specs / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        parts["answer"]["engine"]["outputs"] = "own.jsonl"
        alike = f" ({PROMPTS + 1} of {PROMPTS + 1} answers are the same"
    numbers = {"judge": OTHER, "win_rate": {"value": 40.0}, "outputs": published}
    changes: dict[str, Any] = {"eval": parts, "reported": numbers, "replicates": {"judge": 2}}
    spec = scored_row(tmp_path, **changes)
    there = "--volume", tmp_path / "runs", "--executor", "local"
    commands = ("validate", spec), ("plan", spec, *there), ("run", spec, *there)
    settle = "settle", spec, *there, "--dry-run"

    def check(*args: Any) -> None:
        result = command(*args)
        assert result.exit_code == 2, args
        text = " ".join(result.output.split())
        assert "the row's own answers are the study's own (reported.outputs)" in text, args
        assert f"they would be held against themselves{alike}" in text, args
        assert "Give the row answers of its own (eval.answer.engine); or leave out" in text, args

    for args in (*commands, settle):
        check(*args)
    # An earlier version made it.
    with monkeypatch.context() as patched:
        patched.setattr("harness.run.ready.check_reported", lambda *_: None)
        scored_row(tmp_path, *[wins(800, PROMPTS)] * 4, **changes)
    for args in (*commands, settle):
        check(*args)
    found = metric(tmp_path, spec)
    assert found["verdict"] == "not comparable: another judge"
    assert "they would be held against themselves" in found["reason"]
    assert found["difference"]["low"] is None
    text = words(tmp_path, spec)
    assert "they would be held against themselves" in text
    assert "fewer than two" not in text
    del numbers["outputs"]
    assert command("plan", scored_row(tmp_path, **changes), *there).exit_code == 0


def copied(path: Path, changed: int) -> dict[str, str]:
    """The answers of a file in another one: in another order, with other white space, and so many of
    them changed."""
    rows = json.loads(path.read_text())
    texts = [f"{row['output']} indeed" for row in rows[:changed]]
    texts += [row["output"].replace(" ", "\n ") for row in rows[changed:]]
    rows = [{**row, "output": text} for row, text in zip(rows, texts, strict=True)]
    return given(path.with_name(f"copy-{path.name}"), rows[::-1])


def test_what_a_study_pinned_by_digest_alone_is_known_without_it(tmp_path: Path) -> None:
    parts, published = evaluation(tmp_path / "specs"), outputs(tmp_path, "published")
    parts["answer"]["engine"] = {"kind": "reference", "outputs": "published.json"}
    spec = row(tmp_path, outputs={"sha256": published["sha256"]})
    tree = yaml.safe_load(spec.read_text())
    spec.write_text(yaml.safe_dump({**tree, "eval": parts}))
    result = command("validate", spec)
    assert result.exit_code == 2
    assert "the row's own answers are the study's own" in " ".join(result.output.split())


def test_a_row_that_says_that_it_judges_the_studys_own_answers_is_told_so(tmp_path: Path) -> None:
    """Of the same digest: it may be judged, and its number is compared with nothing."""
    parts, published = evaluation(tmp_path / "specs"), outputs(tmp_path, "published")
    parts["answer"]["engine"] = {"kind": "reference", "outputs": published}
    numbers = {"judge": OTHER, "win_rate": {"value": 40.0}, "outputs": published}
    spec = scored_row(tmp_path, wins(800, PROMPTS), eval=parts, reported=numbers)
    found = metric(tmp_path, spec)
    assert found["verdict"] == "not comparable: another judge"
    assert "the row's own answers are the study's own" in found["reason"]


@pytest.mark.parametrize("changed", [PROMPTS // 5, PROMPTS])
def test_other_answers_than_the_studys_are_held_against_them(tmp_path: Path, changed: int) -> None:
    """A model that was made as the study's was may give many of the same."""
    parts, published = evaluation(tmp_path / "specs"), outputs(tmp_path, "published")
    own = copied(tmp_path / "specs" / "published.json", changed)
    parts["answer"]["engine"] = {"kind": "reference", "outputs": own}
    numbers = {"judge": OTHER, "win_rate": {"value": 40.0}, "outputs": published}
    judged = wins(510, PROMPTS), wins(500, PROMPTS)
    changes: dict[str, Any] = {"reported": numbers, "replicates": {"judge": 1}}
    spec = scored_row(tmp_path, *judged, eval=parts, **changes)
    assert metric(tmp_path, spec)["verdict"] == "reproduced"


def test_what_is_judged_beside_a_row_is_part_of_its_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scored, "cost", {"calls": PROMPTS})
    theirs = wins(500, PROMPTS)
    spec = row(tmp_path, wins(510, PROMPTS), theirs, outputs=outputs(tmp_path, "published"))
    arguments = (spec, "--volume", tmp_path / "runs", "--executor", "local")
    (told,) = csv.DictReader(command("table", *arguments, "--format", "csv").stdout.splitlines())
    assert told["calls"] == str(2 * PROMPTS)
    command("report", *arguments, "--out", tmp_path / "page.html")
    cost = (
        (tmp_path / "page.html").read_text().partition("<caption>Cost")[2].partition("</table>")[0]
    )
    assert "4,000" in cost


def test_the_same_judge_judges_nothing_beside_the_row(tmp_path: Path) -> None:
    same = {"model": "judge", "annotator": "preference", "baseline": "prompts"}
    published = outputs(tmp_path, "published")
    spec = row(tmp_path, wins(800, PROMPTS), judge=same, outputs=published)
    assert metric(tmp_path, spec)["verdict"] == "reproduced"
    plan = command("plan", spec, "--volume", tmp_path / "runs", "--executor", "local")
    assert "published" not in plan.output.replace("published number", "")


def bridged(folder: Path, count: int, ours: int = 500, value: float = 30.0, **changes: Any) -> Path:
    """Our judge gives every model five points fewer than the published one."""
    models = [
        {
            "outputs": outputs(folder, f"m{n}"),
            "annotations": annotations(folder, f"m{n}", wins(500 + 50 * n, PROMPTS), **changes),
        }
        for n in range(count)
    ]
    today = [wins(400 + 50 * n, PROMPTS) for n in range(count)]
    return row(folder, wins(ours, PROMPTS), *today, value=value, bridge=models)


def test_a_bridge_brings_ours_into_their_terms(tmp_path: Path) -> None:
    spec = bridged(tmp_path, 6)
    found = metric(tmp_path, spec)
    terms = found["bridge"]
    assert len(terms["shifts"]) == 6
    assert all(shift["prompts"] == PROMPTS for shift in terms["shifts"])
    assert 100 * terms["ours"]["value"] == pytest.approx(30, abs=1)
    assert found["difference"]["low"] < 0 < found["difference"]["high"]
    assert found["verdict"] in ("reproduced", "inconclusive")
    text = words(tmp_path, spec)
    assert "by 6 bridging models; standard errors: over prompts and replicates" in text
    assert "ours in the published judge's terms - reported" in text
    result = command(
        "table", spec, "--volume", tmp_path / "runs", "--executor", "local", "--format", "csv"
    )
    (cells,) = csv.DictReader(result.output.splitlines())
    assert float(cells["in_their_terms"]) == pytest.approx(30, abs=1)
    assert float(cells["in_their_terms_low"]) < 30 < float(cells["in_their_terms_high"])


@pytest.mark.parametrize("way", ["published", "bridge"])
def test_what_another_model_judged_beside_ours_is_no_judge_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The server's name for the judge, whose last judging another model answered."""
    served = property(lambda self: ["judge" if self.left else "other"])
    monkeypatch.setattr(Scored, "served", served)
    if way == "bridge":
        spec, what = bridged(tmp_path, 6), "one-bridge-6"
    else:
        wons = wins(510, PROMPTS), wins(500, PROMPTS)
        spec, what = (
            row(tmp_path, *wons, outputs=outputs(tmp_path, "published")),
            "the study's own answers",
        )
    assert metric(tmp_path, spec)["verdict"] == "not comparable: another judge"
    told = words(tmp_path, spec)
    assert f"servers say that judge judged ours, and other {what}" in told


def test_a_wrong_digest_of_the_studys_answers_is_told_by_validate(tmp_path: Path) -> None:
    published = outputs(tmp_path, "published")
    spec = row(tmp_path, outputs=published | {"sha256": "0" * 64})
    result = command("validate", spec)
    assert result.exit_code == 2
    assert "published.json is not the file that the spec means" in result.output


def test_a_bridge_of_one_model_takes_the_boards_spread_and_decides_little(tmp_path: Path) -> None:
    spec = bridged(tmp_path, 1)
    assert metric(tmp_path, spec)["verdict"] == "inconclusive"
    assert "so few models cannot show the last" in words(tmp_path, spec)


def test_by_a_bridge_a_difference_is_no_wider_than_it_can_be(tmp_path: Path) -> None:
    """At the level of an early look."""
    spec = bridged(tmp_path, 1, value=2.0)
    tree = yaml.safe_load(spec.read_text())
    tree["reported"]["win_rate"]["standard_error"] = 20.0
    spec.write_text(yaml.safe_dump(tree))
    (loaded,) = load_rows([spec])
    plan = planner(tmp_path / "runs").plan(loaded)
    found = assess(loaded.row, "win_rate", plan.final(), plan, 1 - 1e-13).verdict
    assert found.high == 100
    assert "and +100.00 points" in found.reason


def test_a_bridge_can_find_that_it_is_not_reproduced(tmp_path: Path) -> None:
    assert metric(tmp_path, bridged(tmp_path, 6, value=80.0))["verdict"] == "not reproduced"


def test_a_model_that_lost_everything_is_a_bridge_as_one_that_won_everything(
    tmp_path: Path,
) -> None:
    shifts = []
    for preference in (1.0, 2.0):
        spec = bridged(tmp_path / str(preference), 1, preference=preference)
        found = metric(tmp_path / str(preference), spec)
        assert found["verdict"] == "not reproduced"
        (shift,) = found["bridge"]["shifts"]
        shifts.append(shift["value"])
    assert shifts[0] < -5
    assert shifts[1] > 5


def by_address(folder: Path, spec: Path) -> list[Path]:
    """Name the published verdicts by addresses, which have brought them; where they are then."""
    tree, places = yaml.safe_load(spec.read_text()), []
    for model in tree["reported"]["bridge"]:
        path, digest = model["annotations"]["path"], model["annotations"]["sha256"]
        places.append(folder / "runs" / "files" / digest / path)
        places[-1].parent.mkdir(parents=True)
        (folder / "specs" / path).rename(places[-1])
        model["annotations"] = {"url": f"https://published.example.org/{path}", "sha256": digest}
    spec.write_text(yaml.safe_dump(tree))
    return places


@pytest.mark.parametrize("is_addressed", [False, True])
def test_published_verdicts_that_were_edited_are_not_those_of_the_spec(
    tmp_path: Path, is_addressed: bool
) -> None:
    spec = bridged(tmp_path, 6, value=80.0)
    path = tmp_path / "specs" / "m1-annotations.json"
    if is_addressed:
        path = by_address(tmp_path, spec)[1]
    assert metric(tmp_path, spec)["verdict"] == "not reproduced"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{**row, "preference": 2.0} for row in rows]))
    there = "--volume", tmp_path / "runs", "--executor", "local"
    told = f"{path} is not the file that the spec means: its sha256 is "
    for args in (
        *[("validate", spec)] * (not is_addressed),
        ("plan", spec, *there),
        ("run", spec, *there),
        ("fetch", spec, *there),
        ("settle", spec, *there, "--usd", "9"),
        ("export", spec, *there, "--to", tmp_path / "crate.zip"),
        ("compare", spec, spec, *there),
    ):
        result = command(*args)
        assert result.exit_code == 2, args
        assert told in " ".join(result.output.split()), args
    found = metric(tmp_path, spec)
    assert (found["verdict"], found["ours"]) == ("not run", None)
    assert told in found["reason"]
    page = tmp_path / "page.html"
    for args in (
        ("table", "--all", spec, *there, "--format", "csv"),
        ("report", "--all", spec, *there, "--out", page),
    ):
        result = command(*args)
        text = page.read_text() if args[0] == "report" else result.output
        assert told in text, args


def test_a_bridge_is_of_all_models_that_are_named(tmp_path: Path) -> None:
    """Which verdicts are on the volume would else choose the verdict."""
    spec = bridged(tmp_path, 8)
    places = by_address(tmp_path, spec)
    assert metric(tmp_path, spec)["verdict"] == "reproduced"
    (loaded,) = load_rows([spec])
    plan = planner(tmp_path / "runs").plan(loaded)
    kept = places[0].read_bytes()
    places[0].unlink()
    without = (
        "no bridge: it is not whole, 1 of its 8 models cannot be used yet: one-bridge-1 without the "
        "published judge's verdicts, m0-annotations.json (harness fetch SPEC)"
    )
    check_undecided(tmp_path, spec, without)
    fetch = f"1 file of published verdicts not here: harness fetch {spec}"
    assert fetch in words(tmp_path, spec)
    places[0].write_bytes(kept)
    assert metric(tmp_path, spec)["verdict"] == "reproduced"
    for other in plan.bridge[3:5]:
        shutil.rmtree(other.final()[0].made.folder)
    check_undecided(
        tmp_path, spec, "2 of its 8 models cannot be used yet: one-bridge-4, one-bridge-5 not judged "
        "(harness run SPEC)",
    )  # fmt: skip


def check_undecided(folder: Path, spec: Path, reason: str) -> None:
    """`verify`, `table` and `report` say why alike."""
    found = metric(folder, spec)
    assert (found["verdict"], found["bridge"]) == ("not comparable: another judge", None)
    assert found["difference"]["low"] is None
    assert reason in found["reason"]
    assert reason in words(folder, spec)
    there, page = ("--volume", folder / "runs", "--executor", "local"), folder / "page.html"
    assert reason in command("table", spec, *there, "--format", "csv").output
    assert command("report", spec, *there, "--out", page).exit_code == 0
    assert reason in html.unescape(page.read_text())


@pytest.mark.parametrize("changed", [None, PROMPTS // 20])
def test_the_rows_own_answers_are_no_bridging_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: int | None
) -> None:
    models, parts = agreeing(tmp_path, 3), asked_of_a_bridge(tmp_path / "specs")
    own = "m1.json"
    if changed is not None:  # another file with nearly the same
        own = copied(tmp_path / "specs" / own, changed)["path"]
    parts["answer"]["engine"] = {"kind": "reference", "outputs": own}
    numbers = {"judge": OTHER, "win_rate": {"value": 40.0}, "bridge": models}
    changes: dict[str, Any] = {"eval": parts, "reported": numbers, "replicates": {"judge": 1}}
    spec = scored_row(tmp_path, **changes)
    there = "--volume", tmp_path / "runs", "--executor", "local"
    told = "the row's own answers are those of a bridging model (reported.bridge)"
    for args in (
        ("validate", spec),
        ("plan", spec, *there),
        ("run", spec, *there),
        ("settle", spec, *there, "--dry-run"),
    ):
        result = command(*args)
        assert result.exit_code == 2, args
        text = " ".join(result.output.split())
        assert told in text, args
        assert "Leave that model out of reported.bridge." in text, args
    # An earlier version made it.
    with monkeypatch.context() as patched:
        patched.setattr("harness.run.ready.check_reported", lambda *_: None)
        scored_row(tmp_path, *[wins(800, PROMPTS)] * 4, **changes)
    found = metric(tmp_path, spec)
    assert (found["verdict"], found["bridge"]) == ("not comparable: another judge", None)
    assert told in found["reason"]
    models.pop(1)
    assert command("plan", scored_row(tmp_path, **changes), *there).exit_code == 0


def test_too_few_prompts_of_both_judges_are_no_bridge(tmp_path: Path) -> None:
    models = agreeing(tmp_path, 1)
    few: list[float | None] = [*wins(10, 29), *[None] * (PROMPTS - 29)]
    spec = row(tmp_path, wins(500, PROMPTS), few, bridge=models)
    result = verified(tmp_path, spec)
    assert result.exit_code == 4
    text = " ".join(result.output.split())
    assert "the published judge has verdicts on 29; a bridge needs 30" in text


def before_paying(folder: Path, spec: Path) -> list[tuple[str | Path, ...]]:
    """The commands that look at a row before anything of it is paid for."""
    there = "--volume", folder / "runs", "--executor", "local"
    return [
        ("validate", spec),
        ("plan", spec, *there),
        ("run", spec, *there),
        ("settle", spec, *there, "--usd", "9"),
        ("settle", spec, *there, "--dry-run"),
    ]


def test_a_bridge_that_too_few_verdicts_can_make_is_refused_before_it_is_paid_for(
    tmp_path: Path,
) -> None:
    specs = tmp_path / "specs"
    verdicts = annotations(tmp_path, "m", wins(10, 29))
    spec = row(tmp_path, bridge=[{"outputs": outputs(tmp_path, "m"), "annotations": verdicts}])
    sentence = (
        f"{specs / 'm-annotations.json'}: of its 29 verdicts 29 are on the 2000 prompts that the row "
        "asks of this bridging model, and a bridge needs 30"
    )
    for words_of in before_paying(tmp_path, spec):
        result = command(*words_of)
        assert result.exit_code == 2, words_of
        assert sentence in " ".join(result.output.split()), words_of
    assert not list((tmp_path / "runs").rglob("manifest.json"))


def test_a_judged_model_that_is_no_bridge_stops_what_is_still_to_be_paid(tmp_path: Path) -> None:
    judged, other = agreeing(tmp_path, 2)
    row(tmp_path, wins(500, PROMPTS), wins(500, PROMPTS), bridge=[judged])
    # The published verdicts turn out to be fewer, which changes no key: also where all is made.
    judged["annotations"] = annotations(tmp_path, "m0", wins(10, 29))
    made = len(list((tmp_path / "runs").rglob("manifest.json")))
    for models in ([judged], [judged, other]):
        spec = row(tmp_path, bridge=models)
        for words_of in before_paying(tmp_path, spec):
            result = command(*words_of)
            assert result.exit_code == 2, words_of
            text = " ".join(result.output.split())
            assert "of its 29 verdicts 29 are on the" in text
            place = re.match(rf"(?s).*error: {re.escape(str(spec))}:(\d+):\d+: ", result.output)
            assert place is not None, words_of
            assert "annotations" in spec.read_text().splitlines()[int(place[1]) - 1]
    assert len(list((tmp_path / "runs").rglob("manifest.json"))) == made


def test_every_fault_of_every_bridging_model_is_told_at_once(tmp_path: Path) -> None:
    """Of all rows, each with its place, by `validate`; and by `verify`, which says that they are not
    judged yet."""
    models, specs = agreeing(tmp_path, 3), tmp_path / "specs"
    other = {"annotator": "x", "generator_1": "y"}
    models[0]["annotations"] = annotations(tmp_path, "m0", wins(900, PROMPTS), **other)
    models[1]["annotations"] = annotations(tmp_path, "m1", wins(10, 29))
    models[2]["outputs"] = {**models[2]["outputs"], **given(specs / "broken.json", [{"a": 1}])}
    spec = row(tmp_path, bridge=models)
    second = specs / "two.yaml"
    second.write_text(spec.read_text().replace("row: one", "row: two"))
    lines = spec.read_text().splitlines()
    expected = [
        (
            "annotations",
            0,
            "m0-annotations.json:1 (record 1): the annotator of this verdict (annotator) is 'x'",
        ),
        (
            "annotations",
            0,
            "m0-annotations.json:1 (record 1): the baseline of this verdict (generator_1) is 'y'",
        ),
        ("annotations", 1, "m1-annotations.json: of its 29 verdicts 29 are on the 2000 prompts"),
        ("outputs", 2, "broken.json:1: no `instruction`; the fields here are: a"),
    ]
    result = command("validate", spec, second)
    assert result.exit_code == 2
    told = result.stderr.splitlines()
    for path in (spec, second):
        for field, number, text in expected:
            sentence = f"{path}:.*{re.escape(str(specs))}/{re.escape(text)}"
            (found,) = [line for line in told if re.match(f"error: {sentence}", line)]
            if field == "annotations":
                place = int(found.split(":")[2])
                assert f"m{number}-annotations.json" in "".join(lines[place - 1 : place + 2])
    assert any("like it)" in line for line in told)
    assert "8 faults in what the specs name" in told
    words_of = verified(tmp_path, spec)
    assert words_of.exit_code == 4
    found = json.loads(verified(tmp_path, spec, "--json").output)["faults"]
    for _, _, text in expected:
        assert sum(text in fault for fault in found) == 1
        assert text in " ".join(words_of.output.split())


def test_more_prompts_of_a_bridging_model_than_there_are_are_refused_by_its_own_field(
    tmp_path: Path,
) -> None:
    spec = row(tmp_path, bridge=[{**agreeing(tmp_path, 1)[0], "prompts": PROMPTS + 1}])
    result = command("validate", spec)
    assert result.exit_code == 2
    text = " ".join(result.output.split())
    assert f"a sample of {PROMPTS + 1} prompts is asked for, and" in text
    assert "of a bridging model reported.bridge, prompts" in text


def test_verdicts_on_prompts_that_the_row_does_not_ask_are_no_bridge(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="of its 2000 verdicts 0 are on the 2000 prompts"):
        bridged(tmp_path, 1, instruction="another")
    assert not list((tmp_path / "runs").rglob("manifest.json"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"annotator": "alpaca_eval_gpt4"},
         r"the annotator of this verdict \(annotator\) is 'alpaca_eval_gpt4', that of the published "
         r"number \(reported.judge.annotator\) 'chatgpt'"),
        ({"generator_1": "text_davinci_003"},
         r"the baseline of this verdict \(generator_1\) is 'text_davinci_003', that of the published "
         r"number \(reported.judge.baseline\) 'prompts' .*\n.*write reported.judge.baseline: "
         "text_davinci_003, as they call it"),
        ({"output_2": "something else"}, "its verdict is on another output than"),
        ({"output_2": None, "generator_2": "another model"},
         r"m0-annotations.json:1 \(record 1\): it has no output \(output_2\), and that of 'another "
         r"model' was judged \(generator_2\): neither .*m0.json nor its `generator` is called so"),
        ({"annotator": None}, r"s.json:1 \(record 1\): `annotator` must be a name, not None"),
        ({"annotator": ["weighted"]}, r"`annotator` must be a name, not \['weighted'\]"),
        ({"generator_1": {"a": 1}}, r"`generator_1` must be a name, not \{'a': 1\}"),
        ({"preference": None}, "holds no verdicts"),
    ],
)  # fmt: skip
def test_verdicts_that_are_not_the_published_judges_on_these_outputs_are_found_before_the_run(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        bridged(tmp_path, 1, **changes)
    assert not list((tmp_path / "runs").rglob("manifest.json"))


@pytest.mark.parametrize(
    ("baseline", "wrong", "said"),
    [
        ("prompts", {"generator_1": "gpt4"}, "reported.judge.baseline) 'prompts'"),
        ("prompts", {"annotator": "x"}, "reported.judge.annotator) 'chatgpt'"),
        (None, {"generator_1": "gpt4"}, "none of the published number is given"),
        ("0" * 64, {"annotator": "x"}, "reported.judge.annotator) 'chatgpt'"),
    ],
)
def test_published_verdicts_of_another_judge_or_against_another_baseline_are_told(
    tmp_path: Path, baseline: str | None, wrong: dict[str, Any], said: str
) -> None:
    """By every command that looks at what a study published of a row, also once all is made."""
    of = {**OTHER, "baseline": baseline}
    published = outputs(tmp_path, "published")
    right = annotations(tmp_path, "published", wins(900, PROMPTS))
    judged = wins(510, PROMPTS), wins(500, PROMPTS)
    spec = row(tmp_path, *judged, judge=of, outputs=published, annotations=right)
    there = "--volume", tmp_path / "runs", "--executor", "local"
    commands = ("validate", spec), ("plan", spec, *there), ("run", spec, *there)
    for words_of in commands:
        assert command(*words_of).exit_code == 0
    other = annotations(tmp_path, "published", wins(900, PROMPTS), **wrong)
    spec = row(tmp_path, judge=of, outputs=published, annotations=other)
    line = spec.read_text().splitlines().index("  annotations:") + 1
    for words_of in commands:
        result = command(*words_of)
        assert result.exit_code == 2
        assert f"{spec}:{line}:3: " in result.output
        assert said in result.output
        assert "(and 1999 more records like it)" in result.output
    assert said in words(tmp_path, spec)


@pytest.mark.parametrize("fault", ["no file of answers", "other bytes"])
def test_a_fault_of_a_bridging_models_outputs_is_told_at_its_outputs(
    tmp_path: Path, fault: str
) -> None:
    model = agreeing(tmp_path, 1)[0]
    path = tmp_path / "specs" / "m0.json"
    if fault == "other bytes":
        path.write_text(path.read_text() + "\n")
    else:
        rows = json.loads(path.read_text())
        model["outputs"] = given(path, [{"instruction": row["instruction"]} for row in rows])
    spec = row(tmp_path, bridge=[model])
    result = command("validate", spec)
    assert result.exit_code == 2
    for error in re.findall("error: (.*)", result.stderr):
        line = int(error.removeprefix(f"{spec}:").partition(":")[0])
        assert "outputs:" in spec.read_text().splitlines()[line - 1], error


@pytest.mark.parametrize(("generator", "of_records"), [("m0", None), ("Model 7B", "model-7b")])
def test_verdicts_without_outputs_are_on_those_whose_name_they_bear(
    tmp_path: Path, generator: str, of_records: str | None
) -> None:
    verdicts = annotations(tmp_path, "m0", wins(500, PROMPTS), output_2=None, generator_2=generator)
    model = {"outputs": outputs(tmp_path, "m0"), "annotations": verdicts}
    if of_records is not None:
        path = tmp_path / "specs" / "m0.json"
        rows = json.loads(path.read_text())
        model["outputs"] = given(path, [{**row, "generator": of_records} for row in rows])
    assert command("validate", row(tmp_path, bridge=[model])).exit_code == 0


def test_what_the_error_says_to_write_or_a_digest_as_the_baseline_mends_it(tmp_path: Path) -> None:
    """Whatever the row's own reference is called."""
    verdicts = annotations(tmp_path, "m", wins(900, PROMPTS), generator_1="text_davinci_003")
    model = {"outputs": outputs(tmp_path, "m"), "annotations": verdicts}
    name = "text_davinci_003"
    for baseline in (name, "text-davinci-003", f"{name}.json", "0" * 64):
        spec = row(tmp_path, bridge=[model], judge={**OTHER, "baseline": baseline})
        assert command("validate", spec).exit_code == 0, baseline


@pytest.mark.parametrize("second", [1.0, 2.0])
def test_two_other_verdicts_on_one_output_are_refused_and_the_same_twice_is_one(
    tmp_path: Path, second: float
) -> None:
    answers, path = tmp_path / "answers.json", tmp_path / "annotations.json"
    answers.write_text(json.dumps([{"instruction": "one", "output": "x"}]))
    fields = {"instruction": "one", "output_2": "x"}
    rows = [{**fields, "preference": verdict} for verdict in (2.0, second)]
    path.write_text(json.dumps(rows))
    judge = PublishedJudge(model="gone")
    if second == 2.0:
        assert read_verdicts(path, judge, answers)["one", "", 0] == 1
        return
    with pytest.raises(InputError, match="a second, other verdict on the same output"):
        read_verdicts(path, judge, answers)
    # Asked twice, it was answered twice.
    answers.write_text(json.dumps([{"instruction": "one", "output": "x"}] * 2))
    assert sorted(read_verdicts(path, judge, answers).values()) == [0, 1]


@pytest.mark.parametrize(
    ("answers", "verdicts", "found"),
    [
        (1, [None, 2.0], [1]),
        (1, [2.0, None], [1]),
        (2, [None, 1.0, 2.0], [1, 0]),
        (2, [1.0, 2.0, 1.0, 2.0], [0, 1]),
    ],
)
def test_a_verdict_after_a_judging_that_failed_is_on_the_same_output(
    tmp_path: Path, answers: int, verdicts: list[float | None], found: list[float]
) -> None:
    outputs, path = tmp_path / "answers.json", tmp_path / "annotations.json"
    outputs.write_text(json.dumps([{"instruction": "one", "output": "x"}] * answers))
    rows = [{"instruction": "one", "output_2": "x", "preference": verdict} for verdict in verdicts]
    path.write_text(json.dumps(rows))
    read = read_verdicts(path, PublishedJudge(model="gone"), outputs)
    assert read == {("one", "", place): score for place, score in enumerate(found)}


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_outputs_to_one_prompt_each_has_the_verdict_on_it(
    tmp_path: Path, order: int
) -> None:
    outputs, path = tmp_path / "answers.json", tmp_path / "annotations.json"
    outputs.write_text(json.dumps([{"instruction": "one", "output": text} for text in "xy"]))
    rows = [
        {"instruction": "one", "output_2": text, "preference": verdict}
        for text, verdict in (("x", 1.0), ("y", 2.0))
    ]
    path.write_text(json.dumps(rows[::order]))
    judge = PublishedJudge(model="gone")
    assert read_verdicts(path, judge, outputs) == {("one", "", 0): 0, ("one", "", 1): 1}
    path.write_text(json.dumps([*rows, {**rows[0], "preference": 2.0}]))
    with pytest.raises(InputError, match="a second, other verdict on the same output"):
        read_verdicts(path, judge, outputs)


def test_a_failed_judging_hides_no_second_other_verdict(tmp_path: Path) -> None:
    outputs, path = tmp_path / "answers.json", tmp_path / "annotations.json"
    outputs.write_text(json.dumps([{"instruction": "one", "output": "x"}]))
    rows = [{"instruction": "one", "preference": verdict} for verdict in (None, 1.0, 2.0)]
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match="a second, other verdict on the same output"):
        read_verdicts(path, PublishedJudge(model="gone"), outputs)


def test_what_is_judged_beside_the_row_is_remembered_apart(tmp_path: Path) -> None:
    """A changed spec is compared with the row's own last judging."""
    published = outputs(tmp_path, "published")
    spec = row(tmp_path, wins(510, PROMPTS), wins(500, PROMPTS), outputs=published)
    (tmp_path / "specs" / "prompts.jsonl").write_text('{"instruction": "Say no.", "output": "x"}\n')
    plan = command("plan", spec, "--volume", tmp_path / "runs", "--executor", "local")
    text = " ".join(plan.output.split())
    assert text.count("stale") >= 3
    assert "engine" not in text


def test_the_report_draws_either_way_on_the_numbers_own_axis(tmp_path: Path) -> None:
    published = outputs(tmp_path, "published")
    theirs = row(tmp_path, wins(510, PROMPTS), wins(500, PROMPTS), outputs=published)
    for spec, words in (
        (theirs, "their answers, our judge 25"),
        (bridged(tmp_path / "b", 3), "ours, their judge"),
    ):
        to = spec.parent / "report.html"
        done = command(
            "report", spec, "--volume", spec.parents[1] / "runs", "--executor", "local", "--out", to
        )
        assert done.exit_code == 0, done.output
        page = to.read_text()
        assert words in page
        assert page.count('class="rejudged"') == 1
        # It lies about the reported number, which their answers stand in place of.
        assert ("margin ±3" in page) == (spec != theirs)


def test_published_answers_need_no_bridge(tmp_path: Path) -> None:
    models = [{"outputs": outputs(tmp_path, "m"), "annotations": annotations(
        tmp_path, "m", wins(600, PROMPTS))}]  # fmt: skip
    published = outputs(tmp_path, "published")
    spec = row(tmp_path, wins(510, PROMPTS), wins(500, PROMPTS), outputs=published, bridge=models)
    assert metric(tmp_path, spec)["verdict"] == "reproduced"
    assert metric(tmp_path, spec)["bridge"] is None


def agreeing(folder: Path, count: int) -> list[dict[str, Any]]:
    """Bridging models to whom both judges give the same."""
    return [
        {
            "outputs": outputs(folder, f"m{n}"),
            "annotations": annotations(folder, f"m{n}", wins(800 + 30 * n, PROMPTS)),
        }
        for n in range(count)
    ]


def test_what_would_decide_it_is_said_against_their_own_answers(tmp_path: Path) -> None:
    spec = row(
        tmp_path,
        wins(545, PROMPTS, 200),
        wins(500, PROMPTS),
        outputs=outputs(tmp_path, "published"),
    )
    assert "to decide it 1 more judging would show what each adds" in words(tmp_path, spec)
    theirs: list[float | None] = [*wins(500, PROMPTS)[:-100], *[None] * 100]
    other = tmp_path / "unjudged"
    spec = row(other, wins(510, PROMPTS), theirs, outputs=outputs(other, "published"))
    text = words(other, spec)
    assert "to decide it more replicates alone, up to 20 of a kind, would not" in text
    assert "the unjudged prompts of either side leave open spans 10.00 of it" in text


def test_too_few_bridging_models_are_said_to_be_what_keeps_it_open(tmp_path: Path) -> None:
    text = words(tmp_path, bridged(tmp_path, 3))
    assert "endless replicates and all 2000 prompts of the 3 bridging models would leave" in text
    assert "it takes more bridging models, or the study's own answers" in text


def test_how_many_bridging_prompts_would_decide_it_is_said(tmp_path: Path) -> None:
    """Of thirty models, in whom both judges agree but for noise, 60 prompts of 2,000 are judged."""

    def spread_out(every: int, of: int) -> list[float]:
        return [2.0 if n % every == 0 else 1.0 for n in range(of)]

    models = [
        {
            "outputs": outputs(tmp_path, f"m{n}"),
            "annotations": annotations(tmp_path, f"m{n}", spread_out(3, PROMPTS)),
        }
        for n in range(30)
    ]
    today = [[*spread_out(3, 60)[n % 2 :], 1.0][:60] for n in range(30)]
    spec = row(tmp_path, wins(667, PROMPTS), *today, value=33.3, bridge=models)
    # The published number is just what ours is in its judge's terms.
    centre = 100 * metric(tmp_path, spec)["bridge"]["ours"]["value"]
    spec.write_text(spec.read_text().replace("33.3", f"{centre:.2f}"))
    found = metric(tmp_path, spec)
    assert found["verdict"] == "inconclusive"
    would = found["bridge_would"]
    assert would["most"] == PROMPTS
    assert 60 < would["prompts"] <= PROMPTS
    text = words(tmp_path, spec)
    assert f"{would['prompts']} prompts of each bridging model in place of 60" in text


def test_verdicts_on_other_prompts_than_the_rows_are_no_more_to_be_had(tmp_path: Path) -> None:
    """A settle that was told of them bought a sample that is larger than the prompt set."""
    model = {
        "outputs": outputs(tmp_path, "m"),
        "annotations": annotations(tmp_path, "m", wins(600, PROMPTS)),
    }
    few = wins(200, 500)
    spec = row(tmp_path, few, few[:60], value=33.3, bridge=[model])
    found = metric(tmp_path, spec)
    assert found["bridge_would"]["most"] == 500
    assert "all 500 prompts of the 1 bridging model" in words(tmp_path, spec)


def test_the_shift_is_predicted_once_for_all_numbers_of_replicates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictions = []

    def counted(shifts: Sequence[Shift], level: float) -> Predicted:
        predictions.append((shifts, level))
        return predict(shifts, level)

    monkeypatch.setattr(outlook, "predict", counted)
    outlook._predicted.cache_clear()
    shifts = tuple(Shift(0.1 * n, 0.2, 60) for n in range(4))
    bridge = outlook.Bridge(shifts, 800, 40.0, 1.0, 0.0)
    wide, narrow = (bridge.with_prompts(0).weigh(40.0, 40 - h, 40 + h)[2] for h in (4.0, 2.0))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert len(predictions) == 1
    bridge.with_prompts(200).weigh(40.0, 38.0, 42.0)
    assert len(predictions) == 2


def test_by_a_bridge_one_training_is_allowed_for_as_by_the_same_judge(tmp_path: Path) -> None:
    models = agreeing(tmp_path, 12)
    today = [wins(800 + 30 * n, PROMPTS) for n in range(12)]
    numbers = {"judge": OTHER, "win_rate": {"value": 44.0, "standard_error": 0.3}, "bridge": models}
    trained = {"trained": True, "replicates": {}, "eval": asked_of_a_bridge(tmp_path / "specs")}
    spec = scored_row(tmp_path, wins(1000, PROMPTS), *today, reported=numbers, **trained)
    found = metric(tmp_path, spec)
    assert found["verdict"] == "inconclusive"
    # Two standard deviations of 3 points between trainings, on either side.
    assert found["difference"]["high"] - found["difference"]["low"] > 2 * 1.9 * 3 * math.sqrt(2)


def test_by_a_bridge_our_unjudged_prompts_stay_open(tmp_path: Path) -> None:
    models = agreeing(tmp_path, 12)
    today = [wins(800 + 30 * n, PROMPTS) for n in range(12)]
    ours: list[float | None] = [*wins(500, PROMPTS // 2), *[None] * (PROMPTS // 2)]
    spec = row(tmp_path, ours, *today, value=60.0, bridge=models)
    found = metric(tmp_path, spec)
    assert found["verdict"] == "inconclusive"
    assert found["difference"]["low"] < -30
    assert found["difference"]["high"] > 10


def test_a_model_named_twice_is_no_second_model(tmp_path: Path) -> None:
    model = agreeing(tmp_path, 1)[0]
    spec = row(tmp_path, bridge=[model, model])
    result = command("validate", spec)
    assert result.exit_code == 2
    assert "bridge names the same outputs twice" in result.output


def copy_of(folder: Path, model: dict[str, Any], changed: int) -> dict[str, Any]:
    """The bridging model, so many of its answers changed, and another's verdicts on it."""
    outputs = copied(folder / "specs" / model["outputs"]["path"], changed)
    verdicts = [
        {"instruction": answer["instruction"], "output_2": answer["output"], "preference": 2.0}
        for answer in json.loads((folder / "specs" / outputs["path"]).read_text())
    ]
    path = folder / "specs" / "copy-annotations.json"
    return {"outputs": outputs, "annotations": given(path, verdicts)}


@pytest.mark.parametrize("changed", [0, 1, PROMPTS // 2])
def test_a_models_answers_in_another_file_are_no_second_model(tmp_path: Path, changed: int) -> None:
    first, other = agreeing(tmp_path, 2)
    spec = row(tmp_path, bridge=[first, other, copy_of(tmp_path, first, changed)])
    there = "--volume", tmp_path / "runs", "--executor", "local"
    count = PROMPTS + 1
    same = f"copy-m0.json: {count - changed} of its {count} answers to prompts that "
    for words_of in (("validate", spec), ("run", spec, *there)):
        result = command(*words_of)
        assert result.exit_code == 2, words_of
        text = " ".join(result.output.split())
        assert same in text
        assert f"{first['outputs']['path']} has too are the same" in text
        assert "it is one model all the same" in text


def test_a_copy_that_an_earlier_version_judged_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = agreeing(tmp_path, 1)[0]
    copy = copy_of(tmp_path, first, 0)
    with monkeypatch.context() as patched:
        patched.setattr("harness.run.ready.check_distinct", lambda *_: None)
        spec = row(tmp_path, *[wins(500, PROMPTS)] * 3, bridge=[first, copy])
    found = metric(tmp_path, spec)
    assert found["verdict"] == "not comparable: another judge"
    assert found["bridge"] is None
    assert "it is one model all the same" in found["reason"]
    # How the judges differ on either file stays what it was.
    packed = command("export", spec, "--to", tmp_path / "row.zip", "--volume", tmp_path / "runs")
    assert packed.exit_code == 0, packed.output


def test_samplings_that_differ_as_a_whole_widen_it(tmp_path: Path) -> None:
    """Three judgings of ours, 6 points apart, are no three looks at one number."""
    apart = [wins(count, PROMPTS) for count in (480, 600, 720)]
    judged = [*apart, *[wins(600, PROMPTS)] * 3]
    numbers = {"judge": OTHER, "win_rate": {"value": 40.0, "standard_error": 0.3}}
    numbers |= {"outputs": outputs(tmp_path, "published")}
    spec = scored_row(tmp_path, *judged, reported=numbers, replicates={"judge": 3})
    found = metric(tmp_path, spec)
    assert found["difference"]["value"] == pytest.approx(0)
    assert found["difference"]["high"] > 10


def test_a_crate_tells_no_place_of_the_bridging_models(tmp_path: Path) -> None:
    spec = bridged(tmp_path, 1)
    crate = tmp_path / "crate.zip"
    done = command("export", spec, "--to", crate, "--volume", tmp_path / "runs")
    assert done.exit_code == 0, done.output
    with zipfile.ZipFile(crate) as archive:
        for name in archive.namelist():
            if name.endswith(".json") and "artefacts/" not in name:
                assert str(tmp_path).encode() not in archive.read(name), name


def test_the_documented_verdicts_are_read_as_the_page_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    path, outputs = tmp_path / "annotations.json", tmp_path / "outputs.json"
    path.write_text(example)
    answers = [
        {"instruction": prompt, "output": answer, "generator": "my-model"}
        for prompt, answer in (("Name a prime.", "Seven. "), ("Say hello.", "Hi"))
    ]
    outputs.write_text(json.dumps(answers))
    judge = PublishedJudge(model="gone", annotator="chatgpt", baseline="text_davinci_003")
    read = read_verdicts(path, judge, outputs)
    assert read == {("Name a prime.", "", 0): 1.0, ("Say hello.", "", 0): 0.25}
    (result,) = audit_paths([path])
    named = ("win_rate", "n_judged", "n_expected")
    assert [result.metrics[name] for name in named] == [62.5, 2, 3]
