"""`harness settle`: what it buys, when it stops, and that it goes on where it was."""

import hashlib
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from harness.artefact.call import StageResult
from harness.artefact.keys import Files, digest_of
from harness.artefact.store import Damaged, Store, Unusable
from harness.common.numbers import dollars
from harness.errors import HarnessError, InputError, NotFetched
from harness.llm.prices import Price, Prices
from harness.results.course import counts_of, extended
from harness.results.matrix import lines_of_rows
from harness.results.purchase import Purchase
from harness.results.settle import Settler
from harness.results.verify import sentences
from harness.row.load import LoadedRow, load_rows
from harness.row.twin import scaled
from harness.run.plan import Planner, RowPlan
from harness.stats.spending import levels
from tests.helpers import InstantExecutor, command, evaluation, make, planned, planner
from tests.results.matrix_rows import lines, shown
from tests.results.scored_rows import Scored, scored_row, wins
from tests.results.verdict.test_rejudged import given

PROMPTS = 4000


def row(folder: Path, value: float = 40.0, **changes: Any) -> Path:
    cell = {"value": value, "standard_error": 0.3}
    return scored_row(folder, reported={"win_rate": cell}, **changes)


def settler(folder: Path, spec: Path, usd: float = 10.0, looks: int = 5) -> Settler:
    store = Store(folder / "runs")
    store.prepare()
    (loaded,) = load_rows([spec])
    planner = Planner(store, Files(None, None, store.files_folder), "local")
    return Settler(loaded, "win_rate", usd, looks, planner)


def settle(folder: Path, spec: Path, *judgings: Any, looks: int = 5) -> tuple[Settler, str]:
    out = io.StringIO()
    found = settler(folder, spec, looks=looks)
    found.settle(Scored(*judgings), Console(file=out, width=200))
    return found, " ".join(out.getvalue().split())


def test_a_second_training_comes_before_all_else_and_it_stops_at_a_decision(tmp_path: Path) -> None:
    spec = row(tmp_path, trained=True, replicates={})
    same = wins(1600, PROMPTS)
    found, text = settle(tmp_path, spec, *[same] * 60)
    looks = found.course.looks
    assert looks[0].counts == (1, 1, 1, 0)
    assert looks[0].verdict == "inconclusive"
    assert "buying 1 more training, about $0.00" in text or "more trainings" in text
    assert looks[1].counts[0] > 1
    assert text.count("there already") == text.count("4 stages are there already") == 1
    assert looks[-1].verdict == "reproduced"
    assert looks[-1].next is None
    assert [look.level for look in looks] == levels(5)[: len(looks)]


def test_it_ends_with_its_looks_and_says_what_to_write_into_the_spec(tmp_path: Path) -> None:
    """On the margin nothing decides it."""
    spec = row(tmp_path, value=37.0, trained=True, replicates={})
    apart = [wins(count, PROMPTS) for count in (1560, 1640) * 60]
    found, text = settle(tmp_path, spec, *apart, looks=2)
    assert [look.verdict for look in found.course.looks] == ["inconclusive", "inconclusive"]
    assert "look 2 of 2: inconclusive" in text
    (path, advice) = found.kept()
    assert "settle" in path
    assert "replicates: {train_seeds: [" in advice


def test_its_own_last_line_in_the_spec_opens_no_second_course(tmp_path: Path) -> None:
    spec = row(tmp_path, value=37.0, trained=True, replicates={})
    apart = [wins(count, PROMPTS) for count in (1560, 1640) * 60]
    first, _ = settle(tmp_path, spec, *apart, looks=2)
    (_, advice) = first.kept()
    bought = yaml.safe_load(advice.partition("in the spec: ")[2])
    spec = row(tmp_path, value=37.0, trained=True, **bought)
    again, text = settle(tmp_path, spec, looks=2)
    assert again.course.path == first.course.path
    assert again.course.looks == first.course.looks
    assert "look 2 of 2: inconclusive" in text
    assert "it has ended: its looks are over, and it is inconclusive" in text
    assert "it has ended" in list(again.foretold())[-1]
    assert len(list(again.kept())) == 1
    # Other seeds are no other row.
    seeds = {"train_seeds": [7, 8]}
    other = settler(tmp_path, row(tmp_path, value=37.0, trained=True, replicates=seeds), looks=2)
    assert other.course.looks == first.course.looks
    assert other.loaded.row.replicates.train_seeds is None


def test_an_earlier_versions_course_is_found_or_refused_by_name(tmp_path: Path) -> None:
    spec = row(tmp_path, value=37.0, trained=True, replicates={})
    apart = [wins(count, PROMPTS) for count in (1560, 1640) * 60]
    found, _ = settle(tmp_path, spec, *apart, looks=2)
    path = found.course.path

    def earlier(document: str) -> None:
        content = json.loads(path.read_text())["course"]
        content.pop("begun", None)
        content["terms"]["document"] = document
        path.write_text(json.dumps({"course": content, "sha256": digest_of(content)}))

    earlier(found.terms.document)  # of a row without replicates it was the same
    assert settler(tmp_path, spec, looks=2).course.looks == found.course.looks
    earlier("of a row with replicates")
    with pytest.raises(InputError, match=f"{path} was written before courses were told apart"):
        settler(tmp_path, spec, looks=2)


def test_verify_and_table_keep_to_what_the_looks_said(tmp_path: Path) -> None:
    """At look 1 of 5 the interval is far wider than at 95 %, at which it is reproduced."""
    same = [wins(count, PROMPTS) for count in (1590, 1610, 1600)]
    changes: dict[str, Any] = {"trained": True, "replicates": {"train_seeds": [1, 2, 3]}}
    spec = row(tmp_path, **changes)
    beginning = settler(tmp_path, spec, usd=0)
    make(tmp_path / "runs", spec, executor=Scored(*same))
    (before,) = lines(tmp_path / "runs", spec)
    assert (before.cells.verdict, before.looks) == ("reproduced", "")
    with pytest.raises((IndexError, HarnessError)):
        beginning.settle(Scored(), Console(file=io.StringIO()))  # stopped after its first look
    (line,) = lines(tmp_path / "runs", spec)
    look = "settle: inconclusive at look 1 of 5 (99.9988 % interval of the difference -"
    said = "), to which the verdict keeps"
    assert line.cells.verdict == "inconclusive"
    assert line.cells.verdict_reason.startswith(look)
    assert f"{said}; difference between " in line.cells.verdict_reason
    assert "settle looked" not in "".join(shown(line).values())
    assert line.looks.startswith(
        "settle looked 1 time, of 5 at most, for $0.00; its own verdict: inconclusive at look 1 "
        "(99.9988 %, "
    )
    assert "at 95 % and with the spec's replicates it alone were reproduced" in line.looks
    assert line.cells.verdict_holm == ""
    result = command("verify", spec, "--volume", tmp_path / "runs", "--executor", "local")
    assert result.exit_code == 4
    assert "win_rate: inconclusive" in result.output
    text = " ".join(result.output.split())
    assert f"inconclusive: {look}" in text
    assert said in text
    assert re.search(r"95 % interval \S+ to \S+, as of a single look", text)
    assert "to decide it at 95 % it were decided; settle goes on" in text
    assert "settle looked 1 time" in result.output
    # At the row with another judge nothing was looked.
    parts = evaluation(tmp_path / "specs")
    parts["judge"]["judge"]["model"] = "another"
    spec = row(tmp_path, **changes, eval=parts)
    make(tmp_path / "runs", spec, executor=Scored(*same))
    (other,) = lines(tmp_path / "runs", spec)
    assert (other.cells.verdict, other.looks) == ("reproduced", "")


def test_a_course_is_the_rows_whatever_the_row_or_its_file_is_called(tmp_path: Path) -> None:
    spec = row(tmp_path, trained=True, replicates={"train_seeds": [1, 2, 3]})
    found = settler(tmp_path, spec, usd=0)
    make(tmp_path / "runs", spec, executor=Scored(*[wins(n, PROMPTS) for n in (1590, 1610, 1600)]))
    with pytest.raises((IndexError, HarnessError)):
        found.settle(Scored(), Console(file=io.StringIO()))
    path = found.course.path
    two = spec.with_name("two.yaml")
    two.write_text(spec.read_text().replace("row: one", "row: two"))
    path = path.rename(path.with_name("another-name.json"))
    for copy in (spec, two):
        (line,) = lines(tmp_path / "runs", copy)
        assert line.cells.verdict == "inconclusive"
        assert ("margin 3 and a reported 40), as row one; at 95 %" in line.looks) == (copy == two)
        again = settler(tmp_path, copy)
        assert (again.course.path, again.course.looks) == (path, found.course.looks)
    options = ("--specs", tmp_path / "specs", "--volume", tmp_path / "runs")
    assert "kept: all of" not in command("gc", *options).output
    two.write_text(two.read_text().replace("standard_error: 0.3", "standard_error: 0.31"))
    assert lines(tmp_path / "runs", two)[0].cells.verdict == "inconclusive"
    with pytest.raises(InputError, match="row one was begun with margin 3, 5 looks and a reported"):
        settler(tmp_path, two)
    # With another reported number it is about something else, unless it is the same row.
    two.write_text(two.read_text().replace("value: 40.0", "value: 40.1"))
    (line,) = lines(tmp_path / "runs", two)
    assert (line.cells.verdict, line.looks) == ("reproduced", "")
    assert settler(tmp_path, two).course.looks == []


@pytest.mark.parametrize("kind", ["folder", "dangling link"])
def test_what_is_no_file_in_a_courses_place_damages_its_row_alone(
    tmp_path: Path, kind: str
) -> None:
    spec = row(tmp_path, gen=None, train=None, replicates={})
    found, _ = settle(tmp_path, spec, *[wins(1600, PROMPTS)] * 60)
    other = scored_row(tmp_path, wins(50), row="two")
    found.course.path.unlink()
    if kind == "folder":
        found.course.path.mkdir()
    else:
        found.course.path.symlink_to("nowhere")
    damaged: dict[str, Unusable] = {}
    rows = lines_of_rows(load_rows([spec, other]), [planner(tmp_path / "runs")], damaged)
    assert [line.cells.verdict == "damaged" for line in rows] == [True, False]
    assert list(damaged) == ["one"]
    there = ("--volume", tmp_path / "runs", "--executor", "local")
    result = command("report", spec, other, *there, "--out", tmp_path / "report.html")
    assert (result.exit_code, (tmp_path / "report.html").is_file()) == (1, True)
    with pytest.raises(InputError, match="is not what harness settle wrote"):
        settler(tmp_path, spec)


def test_seeds_that_follow_the_last_one_are_free_ones_of_the_range(tmp_path: Path) -> None:
    last = 2**32 - 1
    spec = row(tmp_path, trained=True, replicates={"train_seeds": [0, last]})
    (loaded,) = load_rows([spec])
    assert extended(loaded, (4, 1, 1, 0)).row.replicates.train_seeds == [0, last, 1, 2]
    parts = evaluation(tmp_path / "specs")
    decoding = {"temperature": 1, "seed": last}
    spec = row(tmp_path, eval=parts, replicates={})
    tree = yaml.safe_load(spec.read_text())
    tree["eval"]["answer"]["decoding"] = decoding
    spec.write_text(yaml.safe_dump(tree))
    (loaded,) = load_rows([spec])
    assert extended(loaded, (1, 3, 1, 0)).row.replicates.sampling_seeds == [last, 0, 1]
    spec = row(tmp_path, trained=True, replicates={"train_seeds": [last]})
    found, _ = settle(tmp_path, spec, *[wins(1600, PROMPTS)] * 60)
    assert found.course.looks[-1].counts[0] > 1


def test_what_it_bought_is_not_asked_for_again(tmp_path: Path) -> None:
    """Of the judgings the spec names one."""
    spec = row(tmp_path, value=37.0, gen=None, train=None, replicates={})
    found, _ = settle(tmp_path, spec, *[wins(1600, PROMPTS)] * 60, looks=2)
    judgings = found.course.looks[-1].counts[2]
    assert judgings > 1
    (line,) = lines(tmp_path / "runs", spec)
    said = f"to count what it bought, write into the spec: replicates: {{judge: {judgings}}}"
    assert said in line.looks
    look = "settle: inconclusive at look 2 of 2 (95.5575 % interval of the difference +"
    assert line.cells.verdict_reason.startswith(look)
    assert line.cells.verdict_reason.endswith(", margin 3)")
    assert "into the spec" not in line.cells.verdict_reason
    assert "1 more judging" not in line.cells.verdict_reason
    assert line.cells.replicates == 1
    result = command("verify", spec, "--volume", tmp_path / "runs", "--executor", "local")
    text = " ".join(result.output.split())
    assert said in text
    assert f"inconclusive: {look}" in text
    assert "1 more judging" not in text
    assert "to decide it" not in text  # its looks are over
    assert "asked once" not in text
    named = row(tmp_path, value=37.0, gen=None, train=None, replicates={"judge": judgings})
    (line,) = lines(tmp_path / "runs", named)
    assert line.looks
    assert "write into the spec" not in line.looks


def test_interrupted_it_goes_on_with_the_same_terms(tmp_path: Path) -> None:
    spec = row(tmp_path, trained=True, replicates={})
    same = wins(1600, PROMPTS)
    with pytest.raises((IndexError, HarnessError)):
        settle(tmp_path, spec, same)  # the first purchase has nobody to judge it
    stored = json.loads(next((tmp_path / "runs" / "settle").iterdir()).read_text())
    (first,) = stored["course"]["looks"]
    assert first["next"][0] > 1
    found, _ = settle(tmp_path, spec, *[same] * 60)
    assert found.course.looks[0].counts == (1, 1, 1, 0)
    assert found.course.looks[1].counts == tuple(first["next"])
    assert found.course.looks[-1].verdict == "reproduced"
    assert len(list((tmp_path / "runs" / "settle").iterdir())) == 1


def test_what_an_interrupted_first_run_made_is_still_its_own_purchase(tmp_path: Path) -> None:
    spec = row(tmp_path, trained=True, replicates={})
    with pytest.raises((IndexError, HarnessError)):
        settle(tmp_path, spec)  # trained and answered, and nobody judges
    assert list((tmp_path / "runs").rglob("manifest.json"))
    found, _ = settle(tmp_path, spec, *[wins(1600, PROMPTS)] * 60)
    assert found.course.owned == []


def test_the_same_replicates_are_planned_once_between_two_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = row(tmp_path, trained=True, replicates={})
    planned: list[tuple[str, int]] = []
    plan = Planner.plan

    def counted(self: Planner, loaded: LoadedRow) -> RowPlan:
        made = len(list((tmp_path / "runs").rglob("manifest.json")))
        planned.append((loaded.row.replicates.model_dump_json(), made))
        return plan(self, loaded)

    monkeypatch.setattr(Planner, "plan", counted)
    found, _ = settle(tmp_path, spec, *[wins(1600, PROMPTS)] * 60)
    assert len(found.course.looks) > 1
    # The first is that of the terms, before the lock is held.
    assert len(planned[1:]) == len(set(planned[1:])) > 2


def test_a_changed_file_of_terms_is_refused(tmp_path: Path) -> None:
    spec = row(tmp_path, trained=True, replicates={})
    settle(tmp_path, spec, *[wins(1600, PROMPTS)] * 60)
    path = next((tmp_path / "runs" / "settle").iterdir())
    path.write_text(path.read_text().replace('"margin": 3.0', '"margin": 9.0'))
    damaged: dict[str, Unusable] = {}
    (line,) = lines_of_rows(load_rows([spec]), [planner(tmp_path / "runs")], damaged)
    assert (line.cells.verdict, line.cells.ours) == ("damaged", None)
    assert "is not what harness settle wrote" in damaged[line.cells.row].message
    for text in (path.read_text(), "[" * 100000):
        path.write_text(text)
        with pytest.raises(InputError, match="is not what harness settle wrote"):
            settler(tmp_path, spec)


@pytest.mark.parametrize("of_bridge", [False, True])
@pytest.mark.parametrize(("stage", "name"), [("judge", "annotations.json"), ("answer", "made.txt")])
def test_what_is_damaged_of_a_judging_is_refused_before_anything_is_bought(
    tmp_path: Path, of_bridge: bool, stage: str, name: str
) -> None:
    spec = bridged_row(tmp_path) if of_bridge else row(tmp_path, replicates={})
    make(tmp_path / "runs", spec, executor=Scored(*[every_third(60)] * 13))
    plan = settler(tmp_path, spec)._plan(counts_of(load_rows([spec])[0]))
    of_row = (plan.bridge[3] if of_bridge else plan).own
    damaged = next(s for s in of_row if s.stage == stage).made
    (damaged.folder / name).unlink()
    told = rf"{damaged.folder.name} was changed after it was made: {name} is missing"
    with pytest.raises(Damaged, match=told):
        settle(tmp_path, spec)
    with pytest.raises(Damaged, match=told):
        list(settler(tmp_path, spec).foretold())
    assert not list((tmp_path / "runs").glob("settle/*.json"))


def test_another_versions_terms_are_refused_in_a_sentence(tmp_path: Path) -> None:
    spec = row(tmp_path, trained=True, replicates={})
    found, _ = settle(tmp_path, spec, *[wins(1600, PROMPTS)] * 60)
    content = json.loads(found.course.path.read_text())["course"]
    for changed in ({**content, "terms": {**content["terms"], "later": 1}}, {"terms": []}):
        found.course.path.write_text(json.dumps({"course": changed, "sha256": digest_of(changed)}))
        with pytest.raises(InputError, match="or another version of it did"):
            settler(tmp_path, spec)


def test_another_reported_number_is_not_what_was_looked_at(tmp_path: Path) -> None:
    """It told the interval of the first beside the verdict on the second."""
    spec = row(tmp_path, value=60.0, gen=None, train=None, replicates={})
    found, _ = settle(tmp_path, spec, wins(1600, PROMPTS))
    assert found.course.looks[-1].verdict == "not reproduced"
    spec = row(tmp_path, value=40.0, gen=None, train=None, replicates={})
    with pytest.raises(InputError, match="5 looks and a reported 60, which are fixed"):
        settler(tmp_path, spec)
    (line,) = lines(tmp_path / "runs", spec)
    assert line.cells.verdict == "inconclusive"
    assert "a reported 60); the spec has a reported 40 by now; at 95 %" in line.looks
    # Written before the number stood there.
    content = json.loads(found.course.path.read_text())["course"]
    content["terms"].pop("reported")
    found.course.path.write_text(json.dumps({"course": content, "sha256": digest_of(content)}))
    assert settler(tmp_path, spec).course.looks == found.course.looks


def test_looks_and_dollars_that_are_not_counted_are_told(tmp_path: Path) -> None:
    """Of the same stages at another number, and of a course whose file is gone."""
    spec = row(tmp_path, value=37.0, trained=True, replicates={})
    apart = [wins(count, PROMPTS) for count in (1560, 1640) * 60]
    found, text = settle(tmp_path, spec, *apart, looks=2)
    assert "another course" not in text
    assert "does not name are there already" not in text
    two = spec.with_name("two.yaml")
    two.write_text(spec.read_text().replace("row: one", "row: two").replace("37.0", "37.001"))
    other = settler(tmp_path, two, looks=2)
    begins_anew = ". Who begins anew until it is decided errs more often than one course does"
    told = (
        f"another course of the same stages has taken 2 looks and paid $0.00: {found.course.path}; it "
        f"counts apart: row one reports 37.0, this row 37.001{begins_anew}"
    )
    assert told in list(other.foretold())
    assert told in settle(tmp_path, two, *apart, looks=2)[1]
    assert "row two reports 37.001, this row 37.0" in settle(tmp_path, spec, looks=2)[1]
    assert "if an earlier course" not in " ".join(settler(tmp_path, spec, looks=2).foretold())
    # So is one of the row under other settings.
    spec.write_text(spec.read_text().replace("decoding:", "decoding:\n      max_new_tokens: 7", 1))
    told = (
        f"another course of the row has taken 2 looks and paid $0.00: {found.course.path}; it counts "
        f"apart: it was of other settings, or other models beside the row{begins_anew}"
    )
    anew = " ".join(settler(tmp_path, spec, looks=2).foretold())
    assert told in anew
    assert "if an earlier course" not in anew
    spec = row(tmp_path, value=37.0, trained=True, replicates={})
    shutil.rmtree(found.course.path.parent)
    train = found._plan((2, 1, 1, 0)).stages[-3]
    told = (
        f"replicates that the spec does not name are there already: train/{train.key[:16]} (of one)"
    )
    assert told in " ".join(settler(tmp_path, spec, looks=2).foretold())
    _, text = settle(tmp_path, spec, looks=2)
    assert told in text
    assert f"whose file is no more in {found.course.path.parent}, its looks and dollars" in text


@pytest.mark.parametrize("own", [None, 0.5])
def test_the_calls_of_a_stage_may_take_what_is_left_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: float | None
) -> None:
    """Before anything is known of the kind, too; a stage ends as at `budget.usd` of the spec."""
    cost(monkeypatch, 0.3)
    changes = {**JUDGED_ONLY, "budget": {"usd": own}, "replicates": {"judge": 3}}
    found, limits = paid_settler(tmp_path, 1.0, **changes), []

    class Limited(Scored):
        def run(self, job: Any, files: Any, on_event: Any) -> None:
            limits.append(job.budget["usd"])
            super().run(job, files, on_event)

    found.settle(Limited(*[wins(1600, PROMPTS)] * 60), Console(file=io.StringIO()))
    left = [1.0, 1.0, 0.7, 0.4]  # of answers, which cost nothing, and of judgings
    assert limits == pytest.approx([min(own or 1.0, usd) for usd in left])


def test_gc_keeps_what_was_bought_though_no_spec_names_it(tmp_path: Path) -> None:
    spec = row(tmp_path, value=37.0, gen=None, train=None, replicates={})
    found, _ = settle(tmp_path, spec, *[wins(1600, PROMPTS)] * 60, looks=2)
    assert found.course.looks[-1].counts[2] > 1
    options = ("--specs", tmp_path / "specs", "--volume", tmp_path / "runs")
    assert "0 items" in command("gc", *options).output
    found.course.path.unlink()
    assert "judge/" in command("gc", *options).output


def test_gc_keeps_what_was_bought_for_a_row_of_other_specs_and_says_so(tmp_path: Path) -> None:
    spec = row(tmp_path, value=37.0, gen=None, train=None, replicates={})
    found, _ = settle(tmp_path, spec, *[wins(1600, PROMPTS)] * 60, looks=2)
    other = scored_row(tmp_path / "other", row="two")
    options = ("--specs", other, "--volume", tmp_path / "runs")
    text = command("gc", *options).output
    assert f"kept: all of one, which harness settle bought for ({found.course.path})" in text
    assert "name them with --specs" in text
    assert "0 items" in text
    found.course.path.unlink()
    text = command("gc", *options).output
    assert "judge/" in text
    assert "some of it was made for 1 row (one): not among the specs looked at" in text


def test_rows_that_nothing_can_settle_are_told_so(tmp_path: Path) -> None:
    spec = row(tmp_path, value=37.0, trained=True, replicates={})
    (loaded,) = load_rows([spec])
    store = Store(tmp_path / "runs")
    planner = Planner(store, Files(None, None, store.files_folder), "local")
    for metric in ("win_rate/x", ""):
        with pytest.raises(InputError, match="reports no number"):
            Settler(loaded, metric, 1.0, 3, planner)
    with pytest.raises(InputError, match="a scaled-down twin, which settles nothing") as error:
        Settler(scaled(loaded), "win_rate", 1.0, 3, planner)
    assert error.value.hint.endswith("harness settle one --dry-run")
    assert "--scale" not in command("settle", "--help").output


def test_another_judges_number_that_nothing_sets_beside_ours_is_not_paid_for(
    tmp_path: Path,
) -> None:
    def refused(**judge: str) -> InputError:
        numbers = {"judge": judge, "win_rate": {"value": 40.0, "standard_error": 0.3}}
        spec = scored_row(tmp_path, reported=numbers, replicates={})
        with pytest.raises(InputError, match="nothing that is bought can decide its win_rate") as e:
            settler(tmp_path, spec)
        return e.value

    told = refused(model="judge-0613")
    assert told.message.endswith("judge-0613 judged the published number, judge ours")
    assert "(reported.outputs) or models that the published judge has judged" in told.hint
    assert "If the server says that judge-0613 answers, run the row first" in told.hint
    assert "run the row first" not in refused(model="judge-0613", annotator="chatgpt").hint
    numbers = {"judge": {"model": "judge"}, "win_rate": {"value": 40.0, "standard_error": 0.3}}
    settler(tmp_path, scored_row(tmp_path, reported=numbers, replicates={}))


def test_what_nothing_can_repeat_is_looked_at_once_and_stays_open(tmp_path: Path) -> None:
    """A constant answer, by recorded calls of the judge."""
    specs = tmp_path / "specs"
    parts = evaluation(specs)
    (specs / "calls.jsonl").write_text("")
    parts["answer"]["engine"] = {"kind": "null"}
    parts["judge"]["transcript"] = "calls.jsonl"
    spec = row(tmp_path, value=37.0, eval=parts, replicates={})
    found, text = settle(tmp_path, spec, wins(1600, PROMPTS))
    (look,) = found.course.looks
    assert (look.verdict, look.next) == ("inconclusive", None)
    assert "it ends here: nothing of the row can be repeated with another outcome" in text


def test_the_same_command_again_buys_nothing_and_other_terms_are_refused(tmp_path: Path) -> None:
    spec = row(tmp_path, trained=True, replicates={})
    first, _ = settle(tmp_path, spec, *[wins(1600, PROMPTS)] * 60)
    before = len(first.course.looks)
    again, text = settle(tmp_path, spec)
    assert len(again.course.looks) == before
    assert "buying" not in text
    with pytest.raises(InputError, match="was begun with margin 3, 5 looks and a reported 40,"):
        settler(tmp_path, spec, looks=9)
    settler(tmp_path, spec, usd=99)


def test_the_row_as_it_stands_is_a_purchase_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paid = evaluation(tmp_path / "specs")
    paid["judge"]["judge"] = {"model": "gpt-4.1-mini", "api_key_env": None}
    cell = {"value": 40.0, "standard_error": 0.3}
    spec = scored_row(tmp_path, reported={"win_rate": cell}, eval=paid)
    (tmp_path / "prices.yaml").write_text("dated: 2026-01-01\nsource: x\nmodels: {}\n")
    monkeypatch.setenv("HARNESS_PRICES", str(tmp_path / "prices.yaml"))
    with pytest.raises(
        InputError, match=rf"the price of gpt-4\.1-mini is not\nAdd it to {tmp_path}/prices\.yaml,"
    ):
        settler(tmp_path, spec, usd=0.0).settle(Scored(), Console(file=io.StringIO()))
    assert not list((tmp_path / "runs").rglob("manifest.json"))
    refused = command("settle", spec, "--usd", "nan", "--volume", tmp_path / "runs")
    assert refused.exit_code == 2
    assert "a number of dollars is wanted" in refused.output


def paid_settler(folder: Path, usd: float, key: str | None = None, **changes: Any) -> Settler:
    """Each judging is expected to cost a little less than a cent."""
    parts = evaluation(folder / "specs")
    parts["judge"]["judge"] = {"model": "gpt-4.1-mini", "api_key_env": key}
    found = settler(folder, row(folder, eval=parts, **changes), usd=usd)
    price = Price(prompt=100.0, completion=100.0)
    found.planner.prices = Prices("2026-01-01", {"gpt-4.1-mini": price})
    return found


def test_all_models_whose_price_is_not_known_are_asked_for_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paid = evaluation(tmp_path / "specs")
    paid["judge"]["judge"] = {"model": "gpt-4.1-mini", "api_key_env": None}
    spec = row(tmp_path, trained=True, replicates={}, eval=paid)
    tree = yaml.safe_load(spec.read_text())
    tree["gen"]["teacher"] = {"model": "another", "api_key_env": None}
    spec.write_text(yaml.safe_dump(tree))
    (tmp_path / "prices.yaml").write_text("dated: 2026-01-01\nsource: x\nmodels: {}\n")
    monkeypatch.setenv("HARNESS_PRICES", str(tmp_path / "prices.yaml"))
    found = settler(tmp_path, spec)
    found.planner.prices = Prices("", {})
    told = r"the price of another and of gpt-4\.1-mini is not\nAdd them to .*, which HARNESS_PRICES"
    with pytest.raises(InputError, match=told):
        found.settle(Scored(), Console(file=io.StringIO()))


def test_a_start_that_is_refused_leaves_no_course_behind(tmp_path: Path) -> None:
    refused = paid_settler(tmp_path, 5.0, key="ABSENT_KEY", replicates={})
    with pytest.raises(InputError, match="ABSENT_KEY"):
        refused.settle(Scored(), Console(file=io.StringIO()))
    assert not list((tmp_path / "runs").rglob("settle/*.json"))


def cost(monkeypatch: pytest.MonkeyPatch, usd: float, **tokens: float) -> None:
    """What each stage turns out to cost."""
    plain, costs = StageResult.to_json, {"usd": usd, **tokens}
    monkeypatch.setattr(StageResult, "to_json", lambda self: {**plain(self), "cost": costs})


@pytest.mark.parametrize(("budget", "judgings"), [(2.0, 1), (4.5, 1), (7.0, 2)])
def test_what_a_purchase_cost_is_what_the_next_of_its_kind_is_expected_to_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: float, judgings: int
) -> None:
    """A server that takes three times the tokens that are assumed; money in judgings as assumed."""
    changes: dict[str, Any] = {"value": 37.0, "gen": None, "train": None, "replicates": {}}
    (judging,) = paid_settler(tmp_path, 1.0, **changes)._plan((1, 1, 1, 0)).stages[-1:]
    assumed, usd = judging.estimate, judging.usd()
    assert usd
    cost(
        monkeypatch,
        3 * usd,
        calls=assumed.calls,
        prompt_tokens=3 * assumed.prompt_tokens,
        completion_tokens=3 * assumed.completion_tokens,
    )
    found, out = paid_settler(tmp_path, budget * usd, **changes), io.StringIO()
    found.settle(Scored(*[wins(1600, PROMPTS)] * 60), Console(file=out, width=200))
    last = found.course.looks[-1]
    assert last.verdict == "inconclusive"
    assert last.counts[2] == judgings
    over = f"{dollars(3 * usd)} are spent, more than --usd {budget * usd:g}"
    assert (over in out.getvalue()) == (budget == 2.0)
    planned = paid_settler(tmp_path, 1.0, **changes)._plan((1, 1, judgings + 1, 0)).stages[-1]
    assert planned.usd() == pytest.approx(3 * usd)


def test_what_replies_do_not_say_the_tokens_of_costs_what_was_expected(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"value": 37.0, "gen": None, "train": None, "replicates": {}}
    (judging,) = paid_settler(tmp_path, 1.0, **changes)._plan((1, 1, 1, 0)).stages[-1:]
    usd = judging.usd()
    assert usd
    found = paid_settler(tmp_path, 2.5 * usd, **changes)
    found.settle(Scored(*[wins(1600, PROMPTS)] * 60), Console(file=io.StringIO()))
    assert found.course.looks[-1].counts[2] == 2
    assert found.course.looks[-1].usd == pytest.approx(2 * usd)


@pytest.mark.parametrize("is_first", [True, False])
def test_what_was_begun_with_more_money_is_not_gone_on_with_for_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    cost(monkeypatch, 0.001)
    changes: dict[str, Any] = {"value": 37.0, "gen": None, "train": None, "replicates": {}}
    judgings = [] if is_first else [wins(1600, PROMPTS)]
    with pytest.raises((IndexError, HarnessError)):  # nobody judges what is to be judged next
        paid_settler(tmp_path, 5.0, **changes).settle(
            Scored(*judgings), Console(file=io.StringIO())
        )
    made = len(list((tmp_path / "runs").rglob("manifest.json")))
    what = "the row as it stands" if is_first else "what look 1 chose"
    after = "" if is_first else r" leaves after the \$0\.0010 that are spent"
    refused = rf"row one: {what} costs about .*--usd 0.001{after}"
    with pytest.raises(InputError, match=refused):
        paid_settler(tmp_path, 0.001, **changes).settle(Scored(), Console(file=io.StringIO()))
    with pytest.raises(InputError, match=refused):
        list(paid_settler(tmp_path, 0.001, **changes).foretold())
    assert len(list((tmp_path / "runs").rglob("manifest.json"))) == made
    again = paid_settler(tmp_path, 5.0, **changes)
    with pytest.raises((IndexError, HarnessError)):
        again.settle(Scored(*[wins(1600, PROMPTS)] * 2), Console(file=io.StringIO()))


def test_what_another_made_of_a_purchase_is_none_of_its_money(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost(monkeypatch, 1.0)
    judgings = [wins(1600, PROMPTS)] * 60
    spec = row(tmp_path, row="two", replicates={"judge": 21}, gen=None, train=None)
    shared = yaml.safe_load(spec.read_text())["eval"]
    make(tmp_path / "runs", spec, executor=Scored(*judgings))
    spec = row(tmp_path, value=37.0, gen=None, train=None, replicates={})
    one = yaml.safe_load(spec.read_text())
    spec.write_text(yaml.safe_dump({**one, "eval": shared}))
    (told,) = (line for line in settler(tmp_path, spec).foretold() if line.startswith("first "))
    assert told.endswith(" more judgings: there already, made for two")
    found, text = settle(tmp_path, spec, looks=2)
    assert [look.usd for look in found.course.looks] == [0, 0]
    judged = found.course.looks[1].counts[2]
    assert judged > 1
    assert f"counting {judged - 1} more judgings: there already, made for two" in text


def test_a_purchase_says_what_of_it_is_to_run_and_what_is_there() -> None:
    partly = Purchase("train", 2, 1.2, 1.0, (3, 1, 1, 0), 3, ("two",))
    told = "2 more trainings (3 stages to run; the others are there already, made for two), about $1.20"
    assert str(partly) == told
    assert str(replace(partly, made_for=())) == "2 more trainings (3 stages to run), about $1.20"


def test_what_was_removed_after_it_ended_leaves_its_verdict_and_its_money(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost(monkeypatch, 1.0)
    spec = row(tmp_path, value=60.0, gen=None, train=None, replicates={})
    found, _ = settle(tmp_path, spec, wins(1600, PROMPTS))
    (look,) = found.course.looks
    shutil.rmtree(tmp_path / "runs" / "artefacts" / "judge")
    again = settler(tmp_path, spec)
    out = io.StringIO()
    assert again.settle(Scored(), Console(file=out, width=200)) == "not reproduced"
    assert "look 1 of 5: not reproduced; 99.9988 % interval " in out.getvalue()
    assert f"{dollars(look.usd)} spent" in out.getvalue()
    assert "it has ended: it is not reproduced" in out.getvalue()


def test_what_was_removed_of_an_open_course_is_made_again_and_paid_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost(monkeypatch, 1.0)
    spec = row(tmp_path, value=37.0, gen=None, train=None, replicates={})
    judged = [wins(1600, PROMPTS)] * 60
    first = settler(tmp_path, spec, usd=2.0)
    monkeypatch.setattr(Settler, "purchase", lambda *_: None)  # as for want of money
    assert first.settle(Scored(*judged), Console(file=io.StringIO())) == "inconclusive"
    (look,) = first.course.looks
    assert look.usd == 1
    shutil.rmtree(tmp_path / "runs" / "artefacts" / "judge")
    again = settler(tmp_path, spec, usd=2.0)
    assert again._spent(again._plan(look.counts)) == 1
    again.settle(Scored(*judged), Console(file=io.StringIO()))
    assert again.course.looks == first.course.looks
    assert list((tmp_path / "runs" / "artefacts" / "judge").iterdir())


def resealed(path: Path, **changes: Any) -> None:
    """What settle wrote, with these changes, None to leave out, and its seal."""
    content = {**json.loads(path.read_text())["course"], **changes}
    content = {name: value for name, value in content.items() if value is not None}
    path.write_text(json.dumps({"course": content, "sha256": digest_of(content)}))


JUDGED_ONLY: dict[str, Any] = {"value": 37.0, "gen": None, "train": None, "replicates": {}}


@pytest.mark.parametrize("is_old", [False, True])
def test_what_was_lost_is_bought_again_as_often_as_the_budget_pays_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_old: bool
) -> None:
    (judging,) = paid_settler(tmp_path, 1.0, **JUDGED_ONLY)._plan((1, 1, 1, 0)).stages[-1:]
    usd = judging.usd()
    assert usd
    monkeypatch.setattr(Settler, "purchase", lambda *_: None)  # as where nothing would decide it

    def again() -> tuple[Settler, str]:
        found, out = paid_settler(tmp_path, 2.5 * usd, **JUDGED_ONLY), io.StringIO()
        found.settle(Scored(wins(1600, PROMPTS)), Console(file=out, width=200))
        return found, out.getvalue()

    first, _ = again()
    shutil.rmtree(tmp_path / "runs" / "artefacts" / "judge")
    if is_old:
        resealed(first.course.path, paid=None, pending=None, lost=None)
    second, text = again()
    assert f"making again what is gone: 1 stage, about {dollars(usd)}" in text
    assert second.course.looks == first.course.looks
    assert paid_settler(tmp_path, 1.0, **JUDGED_ONLY).course.usd == pytest.approx(2 * usd)
    shutil.rmtree(tmp_path / "runs" / "artefacts" / "judge")
    with pytest.raises(InputError, match=rf"what is gone of look 1 costs .* \{dollars(2 * usd)}"):
        again()
    assert not (tmp_path / "runs" / "artefacts" / "judge").exists()


def test_what_a_killed_purchase_made_and_was_then_removed_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settler, "purchase", lambda *_: None)
    first = paid_settler(tmp_path, 1.0, **JUDGED_ONLY)
    first.settle(Scored(wins(1600, PROMPTS)), Console(file=io.StringIO()))
    (key,) = (key for key, usd in first.course.paid.items() if usd)
    usd = first.course.paid[key]
    # Killed after the judging was there and before that was written down.
    resealed(first.course.path, looks=[], paid={}, pending={key: 3 * usd})

    def spent() -> float:
        found = paid_settler(tmp_path, 1.0, **JUDGED_ONLY)
        return found._spent(found._plan((1, 1, 1, 0)))

    assert spent() == pytest.approx(usd)
    shutil.rmtree(tmp_path / "runs" / "artefacts" / "judge")
    assert spent() == pytest.approx(3 * usd)
    assert "begun: 0 looks taken, $" in "".join(
        paid_settler(tmp_path, 1.0, **JUDGED_ONLY).foretold()
    )


def test_a_purchase_whose_first_stage_costs_more_than_expected_stops_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**JUDGED_ONLY, "replicates": {"judge": 4}}
    (judging,) = paid_settler(tmp_path, 1.0, **changes)._plan((1, 1, 4, 0)).stages[-1:]
    assumed, usd = judging.estimate, judging.usd()
    assert usd
    tokens = {n: 3 * getattr(assumed, n) for n in ("prompt_tokens", "completion_tokens")}
    cost(monkeypatch, 3 * usd, calls=assumed.calls, **tokens)
    executor = Scored(*[wins(1600, PROMPTS)] * 4)
    left, spent = rf"about \{dollars(9 * usd)}, more than", rf"after the \{dollars(3 * usd)} that"
    left = f"the row as it stands costs {left} .* {spent} are spent"
    with pytest.raises(InputError, match=left):
        paid_settler(tmp_path, 5 * usd, **changes).settle(executor, Console(file=io.StringIO()))
    assert len(executor.left) == 3
    found = paid_settler(tmp_path, 13 * usd, **changes)
    assert found.course.usd == pytest.approx(3 * usd)
    found.settle(executor, Console(file=io.StringIO()))
    assert found.course.looks[0].usd == pytest.approx(12 * usd)


def test_calls_that_cannot_be_counted_yet_are_not_taken_to_cost_nothing(tmp_path: Path) -> None:
    paid = evaluation(tmp_path / "specs")
    paid["judge"]["judge"] = {"model": "gpt-4.1-mini", "api_key_env": None}
    there = (tmp_path / "specs" / "prompts.jsonl").read_bytes()
    digest = hashlib.sha256(there).hexdigest()
    paid["answer"]["prompts"] = {"file": {"url": "https://h.invalid/p.jsonl", "sha256": digest}}
    spec = row(tmp_path, eval=paid)
    with pytest.raises(InputError, match="a given file is not on the volume yet") as error:
        list(settler(tmp_path, spec).foretold())
    assert error.value.hint == f"Fetch it first: harness fetch {spec}"
    with pytest.raises(InputError, match="what the row as it stands costs is not known"):
        settle(tmp_path, spec)


def test_a_dry_run_says_the_terms_and_buys_nothing(tmp_path: Path) -> None:
    spec = row(tmp_path, trained=True, replicates={})
    result = command("settle", spec, "--usd", "5", "--dry-run", "--volume", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "margin 3; 5 looks at most, each with an interval of its own level: 99.9988 %" in text
    assert "(wider for the early looks, so that all together err no more often" in text
    assert text.startswith("as it stands: not run margin 3")
    assert "first the row as it stands" in text
    assert (
        command("settle", spec, "--dry-run", "--volume", tmp_path / "runs").output == result.output
    )
    assert not list((tmp_path / "runs").rglob("settle/*"))
    make(tmp_path / "runs", spec, executor=Scored(wins(1600, PROMPTS)))
    result = command("settle", spec, "--dry-run", "--volume", tmp_path / "runs")
    now = json.loads(command("verify", spec, "--json", "--volume", tmp_path / "runs").output)
    (of,) = now["metrics"]
    assert of["verdict"] == "inconclusive"
    said = f"as it stands: inconclusive: {of['reason']} margin 3; 5 looks"
    assert " ".join(result.output.split()).startswith(said)
    refused = command("settle", spec, "--volume", tmp_path / "runs")
    assert refused.exit_code == 2
    assert "Missing option '--usd'" in refused.output


def every_third(count: int, first: int = 0) -> list[float]:
    return [2.0 if n % 3 == first else 1.0 for n in range(count)]


def bridged_row(folder: Path, sampled: int | None = 60, **changes: Any) -> Path:
    """Of twelve models, in whom both judges agree but for noise, 60 of 2,000 prompts are judged."""
    specs = folder / "specs"
    parts = evaluation(specs)
    prompts = [{"instruction": f"prompt {n}", "output": "no"} for n in range(2000)]
    (specs / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    parts["answer"]["prompts"] = {"file": "many.jsonl"}
    parts["judge"]["reference"] = "many.jsonl"
    models = []
    for n in range(12):
        rows = [{"instruction": f"prompt {i}", "output": f"m{n} {i}"} for i in range(2000)]
        verdicts = [
            {**row, "output_2": row["output"], "preference": preference}
            for row, preference in zip(rows, every_third(2000), strict=True)
        ]
        models.append(
            {
                "outputs": given(specs / f"m{n}.json", rows),
                "annotations": given(specs / f"m{n}-annotations.json", verdicts),
                "prompts": sampled,
            }
        )
    cell = {"value": 33.3, "standard_error": 0.3}
    reported = {"judge": {"model": "gone"}, "win_rate": cell, "bridge": models}
    return scored_row(folder, reported=reported, eval=parts, replicates={}, **changes)


def test_prompts_of_bridging_models_are_bought_where_they_narrow_it_most(tmp_path: Path) -> None:
    spec = bridged_row(tmp_path)
    few = [[*every_third(60, n % 3)] for n in range(12)]
    found, text = settle(tmp_path, spec, every_third(2000), *few, *[every_third(2000)] * 60)
    first, *_, last = found.course.looks
    assert first.counts == (1, 1, 1, 60)
    assert first.verdict == "inconclusive"
    assert "more prompts of each bridging model" in text
    assert 60 < last.counts[3] <= 2000
    assert last.verdict == "reproduced"
    assert "of bridging models a larger sample" in found.course.terms.rule
    assert any(
        line.endswith(f"in the spec: prompts: {last.counts[3]} of each reported.bridge")
        for line in found.kept()
    )
    # The same command again buys nothing, and verify with what it says finds the same.
    again, text = settle(tmp_path, spec)
    assert again.course.looks == found.course.looks
    assert "buying" not in text
    written = settler(tmp_path, bridged_row(tmp_path, sampled=last.counts[3]))
    assert written.course.looks == found.course.looks
    assert written.loaded.row.reported.bridge[0].prompts == 60


def test_verdicts_that_are_not_fetched_are_asked_for_before_a_look(tmp_path: Path) -> None:
    spec = bridged_row(tmp_path)
    tree = yaml.safe_load(spec.read_text())
    model = tree["reported"]["bridge"][3]
    digest = model["annotations"]["sha256"]
    model["annotations"] = {"url": "http://127.0.0.1:9/annotations.json", "sha256": digest}
    spec.write_text(yaml.safe_dump(tree))
    with pytest.raises(NotFetched, match="annotations"):
        settler(tmp_path, spec)


def test_the_published_judges_verdicts_stay_the_same_from_the_first_look_on(tmp_path: Path) -> None:
    spec = bridged_row(tmp_path)
    few = [[*every_third(60, n % 3)] for n in range(12)]
    with pytest.raises((IndexError, HarnessError)):  # stopped after its first look
        settle(tmp_path, spec, every_third(2000), *few)
    found = settler(tmp_path, spec)
    terms = json.loads(found.course.path.read_text())["course"]["terms"]
    before = spec.parent / "m3-annotations.json"
    rows = [{**row, "preference": 2.0} for row in json.loads(before.read_text())]
    other = given(spec.parent / "other.json", rows)
    tree = yaml.safe_load(spec.read_text())
    tree["reported"]["bridge"][3]["annotations"] = other
    swapped = spec.with_name("swapped.yaml")
    swapped.write_text(yaml.safe_dump(tree))
    refused = "row one was begun with other verdicts of the published judge"
    with pytest.raises(InputError, match=refused):
        settler(tmp_path, swapped)
    (line,) = lines(tmp_path / "runs", swapped)
    assert "with other verdicts of the published judge than reported.bridge names now" in line.looks
    assert "other verdicts" not in lines(tmp_path / "runs", spec)[0].looks
    # Begun before they stood there: those of the first command since are kept.
    resealed(found.course.path, terms={**terms, "annotations": None})
    settler(tmp_path, swapped)
    with pytest.raises((IndexError, HarnessError)):
        settle(tmp_path, spec)
    with pytest.raises(InputError, match=refused):
        settler(tmp_path, swapped)
    before.write_text(json.dumps(rows))
    with pytest.raises(
        InputError, match=r"m3-annotations\.json is not the file that the spec means"
    ):
        settler(tmp_path, spec)


def test_what_a_larger_sample_took_the_place_of_stays_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = bridged_row(tmp_path)
    paid: dict[str, Any] = {"usd": 0.5}
    plain = StageResult.to_json
    monkeypatch.setattr(StageResult, "to_json", lambda self: {**plain(self), "cost": paid})
    few = [[*every_third(60, n % 3)] for n in range(12)]
    found, _ = settle(tmp_path, spec, every_third(2000), *few, *[every_third(2000)] * 60)
    bought = [look.usd for look in found.course.looks]
    # 13 judgings, and 12 anew at each further look.
    assert bought[0] == pytest.approx(6.5)
    assert bought[1] == pytest.approx(12.5)


def test_a_larger_sample_is_expected_to_cost_as_many_times_what_the_smaller_did(
    tmp_path: Path,
) -> None:
    spec = bridged_row(tmp_path)
    took = {"calls": 66, "prompt_tokens": 6000, "completion_tokens": 600}
    make(tmp_path / "runs", spec, executor=InstantExecutor(lambda job: {"cost": took}))
    larger = settler(tmp_path, spec)._plan((1, 1, 1, 120))
    (judging,) = larger.bridge[3].final()
    expected = judging.estimate
    assert {name: getattr(expected, name) / 2 for name in took} == took
    assert expected.is_measured
    # Of the row itself all prompts are judged, whatever samples there are of others.
    (another,) = settler(tmp_path, spec)._plan((1, 1, 2, 60)).final()[1:]
    assert another.estimate.calls == 66
    result = command("plan", bridged_row(tmp_path, sampled=120), "--volume", tmp_path / "runs")
    told = "12,000 prompt + 1,200 completion tokens as the same took before"
    assert told in " ".join(result.output.split())
    # Of all prompts, as of so many times the sample.
    whole = settler(tmp_path, bridged_row(tmp_path, sampled=None))._plan((1, 1, 1, 0))
    (judging,) = whole.bridge[3].final()
    assert (judging.estimate.calls, judging.estimate.is_measured) == (2200, True)


def replaced(file: Path, rows: list[dict[str, Any]], text: str) -> str:
    """The spec's text once a given file of it is another."""
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    file.unlink()
    return text.replace(before, given(file, rows)["sha256"])


def test_what_other_answers_took_lowers_no_estimate(tmp_path: Path) -> None:
    spec = bridged_row(tmp_path)
    took = {"calls": 60, "prompt_tokens": 60, "completion_tokens": 60}
    make(tmp_path / "runs", spec, executor=InstantExecutor(lambda job: {"cost": took}))
    text = spec.read_text()
    rows = json.loads((spec.parent / "m3.json").read_text())
    rows = [{**row, "output": "other"} for row in rows]
    text = replaced(spec.parent / "m3.json", rows, text)
    verdicts = spec.parent / "m3-annotations.json"
    rows = [{**row, "output_2": "other"} for row in json.loads(verdicts.read_text())]
    spec.write_text(replaced(verdicts, rows, text))
    (judging,) = settler(tmp_path, spec)._plan((1, 1, 1, 60)).bridge[3].final()
    assert judging.estimate.calls == 60
    assert judging.estimate.prompt_tokens > 60
    assert not judging.estimate.is_measured


def test_answers_that_are_there_are_expected_at_their_own_length(tmp_path: Path) -> None:
    spec = bridged_row(tmp_path)

    def expected() -> list[int]:
        (plan,) = planned(tmp_path / "runs", spec)
        return [row.final()[0].estimate.prompt_tokens // 60 for row in plan.bridge[3:5]]

    make(tmp_path / "runs", spec)
    shutil.rmtree(tmp_path / "runs" / "artefacts" / "judge")
    for artefact in Store(tmp_path / "runs").whole():
        (artefact.folder / "model_outputs.json").write_text('[{"output": "' + "x" * 400 + '"}]')
    assert all(100 < tokens < 150 for tokens in expected())
    file = spec.parent / "m3.json"
    rows = [{"instruction": f"prompt {n}", "output": "x" * 8000} for n in range(2000)]
    spec.write_text(replaced(file, rows, spec.read_text()))
    longer, same = expected()
    assert longer == pytest.approx(2000, abs=100)
    assert same < 150


def test_what_an_interrupted_stage_has_paid_is_spent(tmp_path: Path) -> None:
    spec = bridged_row(tmp_path)
    tree = yaml.safe_load(spec.read_text())
    tree["eval"]["judge"]["judge"] = {"model": "judge"}
    spec.write_text(yaml.safe_dump(tree))
    found = settler(tmp_path, spec, usd=0.05)
    found.planner.prices = Prices("", {"judge": Price(prompt=0.1, completion=0)})
    found._plans.clear()
    stage = found._plan((1, 1, 1, 60)).bridge[3].final()[0]
    assert stage.kept_usd == 0
    work = found.planner.store.work_folder(*stage.id)
    work.mkdir(parents=True)
    record = {
        "digest": "d", "request": {"endpoint": "e", "model": "judge", "body": {}}, "ok": True,
        "attempts": [{"outcome": "ok"}], "response": {"choices": []}, "served_model": "judge",
        "usage": {"prompt_tokens": 50_000, "completion_tokens": 1},
    }  # fmt: skip
    lines = [json.dumps({**record, "occurrence": n}) + "\n" for n in range(20)]
    (work / "transcript.jsonl").write_text("".join(lines))
    found._plans.clear()
    plan = found._plan((1, 1, 1, 60))
    stage = plan.bridge[3].final()[0]
    assert (stage.estimate.calls, stage.estimate.prompt_tokens) == (40, 40 * 50_000)
    assert found._spent(plan) == pytest.approx(0.1)
    with pytest.raises(InputError, match="that are spent"):
        found._check_budget(plan, "the row")


def test_one_judging_of_either_side_promises_nothing_and_a_judging_more_is_two_stages(
    tmp_path: Path,
) -> None:
    published = [{"instruction": f"prompt {n}", "output": f"their {n}"} for n in range(90)]
    published.append({"instruction": "Say no.", "output": "No."})
    outputs = given(tmp_path / "specs" / "published.json", published)
    numbers = {"judge": {"model": "gone"}, "win_rate": {"value": 33.3}, "outputs": outputs}
    judged = every_third(90), every_third(90, 1)
    spec = scored_row(tmp_path, *judged, reported=numbers, replicates={"judge": 1})
    *_, best, first = settler(tmp_path, spec).foretold()
    assert best == "what can at best be reached is not known before a second judging"
    judgings = int(first.split()[1])
    assert first.startswith(f"first {judgings} more judging")
    assert f"({2 * judgings} stages to run), about " in first


def test_what_the_verdict_asks_for_first_is_bought_first(tmp_path: Path) -> None:
    """Three trainings that agree, judged once each: what a judging adds to the error is not known."""
    spec = scored_row(
        tmp_path, *[wins(120, 300)] * 3, trained=True,
        reported={"win_rate": {"value": 40, "standard_error": 0.3}},
    )  # fmt: skip
    (asked,) = lines(tmp_path / "runs", spec)
    assert asked.weighed.verdict.more == (("judge", 1),)
    found, text = settle(tmp_path, spec, *[wins(120, 300)] * 3)
    assert "or more, which a second judging would show, margin 3: " in text
    assert "buying 1 more judging (3 stages to run), about $0.00" in text
    # They agree: all of the error is the choice of prompts.
    assert [look.counts for look in found.course.looks] == [(3, 1, 1, 0), (3, 1, 2, 0)]
    assert "nothing that can be bought would decide it" in text
    # What was begun by the rule of earlier versions goes on by it.
    terms = json.loads(found.course.path.read_text())["course"]["terms"]
    rule = terms["rule"].replace(", then what the verdict asks for first", "")
    resealed(found.course.path, terms={**terms, "rule": rule}, looks=[])
    found, text = settle(tmp_path, spec, *[wins(120, 300)] * 3)
    assert found.course.terms.rule == rule
    assert "more judging" not in text


def test_fewer_than_would_show_anything_are_not_bought_and_the_price_is_told(
    tmp_path: Path,
) -> None:
    """Two trainings are asked for, and the money is for one."""
    changes: dict[str, Any] = {"trained": True, "replicates": {}}
    (judging,) = paid_settler(tmp_path, 1.0, **changes)._plan((1, 1, 1, 0)).stages[-1:]
    usd = judging.usd()
    assert usd
    found, out = paid_settler(tmp_path, 2.5 * usd, **changes), io.StringIO()
    found.settle(Scored(*[wins(120, 300)] * 3), Console(file=out, width=200))
    assert [look.counts for look in found.course.looks] == [(1, 1, 1, 0)]
    why = "2 more trainings (6 stages to run), about "
    assert f"it ends here: {why}" in out.getvalue()
    assert f"would be next: --usd {2.5 * usd:g} leaves {dollars(1.5 * usd)}" in out.getvalue()
    *_, nothing = paid_settler(tmp_path, 2.5 * usd, **changes).foretold()
    assert nothing.startswith(f"nothing: {why}")
    found = paid_settler(tmp_path, 3.5 * usd, **changes)
    found.settle(Scored(*[wins(120, 300)] * 2), Console(file=io.StringIO()))
    assert found.course.looks[1].counts == (3, 1, 1, 0)


def test_a_look_that_was_told_is_written_down_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    spec = row(tmp_path, value=37.0, gen=None, train=None, replicates={})
    with monkeypatch.context() as patch:
        patch.setattr("harness.results.settle._tell", stopped)
        with pytest.raises(KeyboardInterrupt):
            settle(tmp_path, spec, wins(1600, PROMPTS))
    (first,) = settler(tmp_path, spec).course.looks
    found, _ = settle(tmp_path, spec, *[wins(1600, PROMPTS)] * 60)
    assert found.course.looks[0].counts == first.counts
    assert len(found.course.looks) > 1


def test_by_a_bridge_too_a_second_judging_is_asked_for_where_it_could_decide(
    tmp_path: Path,
) -> None:
    """Both judges agree in all prompts of twelve models: the error that is left is our own."""
    spec = bridged_row(tmp_path, sampled=None, margins={"win_rate": 2.0})
    make(tmp_path / "runs", spec, executor=Scored(*[every_third(2000)] * 13))
    (line,) = lines(tmp_path / "runs", spec)
    assert line.cells.verdict == "inconclusive"
    asked = "1 more judging would show what each adds to the error over prompts, and so whether"
    assert asked in dict(sentences(line))["to decide it"]
    *_, best, first = settler(tmp_path, spec).foretold()
    # The reported number's error of 0.3, and next to nothing of the bridge.
    left = "±0.61 about the difference is left, or more, which a second judging would show"
    assert left in best
    assert first == "first 1 more judging (13 stages to run), about $0.00"


def test_what_nothing_could_decide_is_not_bought_and_said_to_be_so(tmp_path: Path) -> None:
    """The reported number's own error alone leaves more than the margin."""
    cell = {"value": 40.0, "standard_error": 1.9}
    spec = scored_row(tmp_path, reported={"win_rate": cell}, trained=True, replicates={})
    limit = (
        "`reproduced` is out of reach: the reported number's own error alone leaves ±3.72, margin 3"
    )
    assert limit in settler(tmp_path, spec).foretold()
    found, text = settle(tmp_path, spec, *[wins(1600, PROMPTS)] * 60)
    assert limit in text
    (look,) = found.course.looks
    assert (look.verdict, look.next) == ("inconclusive", None)
    reach = (
        "or more, which a second training would show (trainings are taken to differ by a standard "
        "deviation of 1, as is usual, and not by the 3 that one training is allowed for), margin 3: no "
        "verdict is in reach"
    )
    assert reach in text
    assert "it ends here: nothing that can be bought would decide it" in text
    again = settler(tmp_path, spec)
    *_, best, last = again.foretold()
    assert best.endswith(reach)
    assert last == "nothing: nothing that can be bought would decide it"
    run = ("settle", spec, "--usd", "5", "--volume", tmp_path / "runs", "--executor", "local")
    assert command(*run).exit_code == 4
    assert command(*run, "--dry-run").exit_code == 0
    assert "whatever the verdict" in " ".join(command("settle", "--help").output.split())
    # So far off it is worth a training: not to be reproduced is in reach.
    cell["value"] = 34.0
    far = scored_row(tmp_path, reported={"win_rate": cell}, trained=True, replicates={})
    shutil.rmtree(tmp_path / "runs" / "settle")
    *_, best, last = settler(tmp_path, far).foretold()
    assert best.endswith("margin 3: not reproduced is in reach")
    assert "more training" in last
