"""Audits at the terminal and as JSON: all that is found, and nothing a model wrote steers either."""

import io
import json
from pathlib import Path

from click.testing import CliRunner
from rich.console import Console

from harness.artefact.manifest import Finding
from harness.audit import Result
from harness.audit.model import KINDS
from harness.cli import main
from harness.cli.views.audit import show_audits, to_json
from tests.audit.folders import audit, only_result, rows_of, write
from tests.audit.readers.test_artefacts import volume


def terminal_text(results: list[Result], width: int = 100) -> str:
    out = io.StringIO()
    show_audits(Console(file=out, width=width), results)
    return out.getvalue()


def test_piped_no_line_of_a_finding_is_broken(tmp_path: Path) -> None:
    out = io.StringIO()
    show_audits(Console(file=out, width=40, soft_wrap=True), audit(faulty(tmp_path)))
    lines = out.getvalue().splitlines()
    assert max(len(line) for line in lines if "error dropped_rows" in line) > 80


def faulty(folder: Path) -> Path:
    def change(rows: list[dict[str, object]]) -> None:
        for row in rows[:20]:
            row |= {"preference": None, "raw_completion": None}

    return write(folder, rows_of(), change)


def test_numbers_come_with_what_was_judged_and_to_how_many_digits(tmp_path: Path) -> None:
    text = terminal_text(audit(faulty(tmp_path)))
    assert "judged 180 of 200: between" in text
    assert "published and recomputed: matches" in text
    assert [line for line in text.splitlines() if "win_rate" in line and "exact" in line]
    assert "error dropped_rows" in text
    assert "1 result, 1 error" in text


def test_what_our_own_manifests_say_is_recorded_and_not_published(tmp_path: Path) -> None:
    text = terminal_text(audit(volume(tmp_path, rows_of())))
    assert "recorded and recomputed: matches" in text
    assert "published" not in text


def test_a_clean_result_says_so(tmp_path: Path) -> None:
    text = terminal_text(audit(write(tmp_path, rows_of())))
    assert "no finding" in text
    assert "1 result, no finding" in text


def test_a_number_that_differs_stands_out(tmp_path: Path) -> None:
    text = terminal_text(audit(write(tmp_path, rows_of(), board={"win_rate": 12.345})))
    assert "DOES NOT MATCH" in text
    assert "12.345" in text


def test_errors_come_before_warnings_and_information() -> None:
    kinds = ("info", "error", "warning")
    result = Result("x", "y", findings=[Finding(KINDS[0], k, f"m {k}") for k in kinds])  # type: ignore[arg-type]
    text = terminal_text([result])
    assert text.index("m error") < text.index("m warning") < text.index("m info")
    assert [f["severity"] for f in result.to_dict()["findings"]] == ["error", "warning", "info"]


def test_what_could_steer_a_terminal_is_escaped() -> None:
    bad = "\x1b[31m[red]x[/red]\x07\r\u202e"
    finding = Finding(KINDS[0], "error", bad, {"examples": [bad, {bad: bad}]})
    result = Result(bad, bad, {bad: 1.0}, {bad: bad}, findings=[finding], notes=[bad])
    text = terminal_text([result])
    assert not set("\x1b\x07\r\u202e") & set(text)
    assert "[red]x[/red]" in text
    assert "\x1b" not in to_json([result])


def test_lines_fit_a_narrow_terminal_and_end_without_blanks(tmp_path: Path) -> None:
    lines = terminal_text(audit(faulty(tmp_path)), width=60).splitlines()
    assert all(line == line.rstrip() for line in lines)
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 60


def test_json_is_one_object_of_one_result_and_a_list_of_several(tmp_path: Path) -> None:
    faulty(tmp_path / "a")
    document = json.loads(to_json(audit(tmp_path)))
    assert document["path"] == str(tmp_path / "a")
    assert document["matches"] is True
    assert {"path", "kind", "metrics", "published", "matches", "findings"} <= set(document)
    (finding,) = document["findings"]
    assert set(finding) == {"kind", "severity", "message", "evidence"}
    write(tmp_path / "b", rows_of(5))
    assert len(json.loads(to_json(audit(tmp_path)))) == 2


def test_json_holds_finite_numbers_alone() -> None:
    result = Result("x", "y", {"a": float("nan"), "b": [float("inf")], "c": (1, 2)})
    assert json.loads(to_json([result]))["metrics"] == {"a": None, "b": [None], "c": [1, 2]}


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    faulty(tmp_path)
    assert to_json(audit(tmp_path)) == to_json(audit(tmp_path))


def test_the_command_ends_in_0_without_a_finding_1_with_one_and_2_with_nothing_to_read(
    tmp_path: Path,
) -> None:
    clean = write(tmp_path / "clean", rows_of())
    dirty = faulty(tmp_path / "dirty")
    (tmp_path / "none").mkdir()
    assert only_result(clean).findings == []
    run = CliRunner().invoke
    assert run(main, ["audit", str(clean)]).exit_code == 0
    assert run(main, ["audit", str(clean), str(dirty)]).exit_code == 1
    assert run(main, ["audit", str(tmp_path / "none")]).exit_code == 2
    process = run(main, ["audit", "--json", str(dirty)])
    assert process.exit_code == 1
    assert json.loads(process.stdout)["findings"]


def test_the_help_says_what_json_is_given(tmp_path: Path) -> None:
    help_text = CliRunner().invoke(main, ["audit", "--help"]).output
    assert "an object for one result, a list of them" in " ".join(help_text.split())
    write(tmp_path / "a", rows_of(1))
    write(tmp_path / "b", rows_of(2))
    for paths, kind in (([tmp_path / "a"], dict), ([tmp_path], list)):
        out = CliRunner().invoke(main, ["audit", "--json", *map(str, paths)]).output
        assert isinstance(json.loads(out), kind)


def test_what_many_results_of_a_suite_have_in_common_is_told_once() -> None:
    results = [
        Result(f"/board/results/model-{n}/judge", "alpaca_eval", notes=["no annotations"],
               findings=[Finding(KINDS[0], "warning", f"{n} of 805 rows of model-{n} are missing",
                                 {"name": f"model-{n}", "dropped": n})])
        for n in range(2, 62)
    ]  # fmt: skip
    results[7].add(KINDS[1], "error", "another thing", {})
    text = terminal_text(results, 400)
    assert text.count("rows of model-") == 1
    assert "so too in 59 more: model-3, model-4, model-5 and others" in text
    assert text.count("no annotations") == 1
    assert "another thing" in text
    assert "60 results, 1 error, 60 warnings" in text
    assert "no finding" not in text
    documents = json.loads(to_json(results))
    assert [
        r["findings"][0]["evidence"].get("dropped") for r in documents if len(r["findings"]) == 1
    ] == [n for n in range(2, 62) if n != 9]


def test_what_many_tasks_of_one_result_have_in_common_is_told_once() -> None:
    tasks = [f"mmlu_{name}" for name in ("law", "virology", "anatomy", "history", "logic", "art")]
    findings = [
        Finding(
            KINDS[5], "warning", f"{task}: of {n} questions {n / 7} stand twice", {"task": task}
        )
        for n, task in enumerate(tasks, start=90)
    ]
    text = terminal_text([Result("results.json", "lm_eval", findings=findings)], 300)
    assert text.count("questions") == 1
    assert "so too in 5 more: mmlu_virology, mmlu_anatomy, mmlu_history and others" in text
    assert "5 findings told above" in text
    few = terminal_text([Result("results.json", "lm_eval", findings=findings[:3])], 300)
    assert few.count("questions") == 3


def test_findings_of_other_words_or_severities_are_each_told() -> None:
    words = ("cut off", "empty", "in a loop", "of one length", "repeated")
    findings = [Finding(KINDS[0], "warning", f"3 outputs are {word}") for word in words]
    findings += [Finding(KINDS[0], "error", "3 outputs are empty")]
    text = terminal_text([Result("x", "y", findings=findings)])
    assert text.count("outputs are") == 6


def test_a_remark_that_differs_in_its_numbers_alone_is_told_once(tmp_path: Path) -> None:
    for n in range(5):
        rows = rows_of(n, n=40)
        rows[n]["output_2"] = ""
        length = sum(len(row["output_2"]) for row in rows)
        write(tmp_path / f"model-{n}", rows, board={"avg_length": int(length / 39)})
    results = audit(tmp_path)
    assert all(any("not empty" in note for note in r.notes) for r in results)
    text = terminal_text(results, 300)
    assert text.count("outputs that are not empty") == 1
    assert "so too in 4 more: model-1, model-2, model-3 and others" in text
