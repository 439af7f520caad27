"""The length-controlled win rate: the package's own figure, from local files, for AlpacaEval alone."""

import csv
import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.artefact.keys import file_digest
from harness.errors import InputError
from harness.judge import run as judge
from harness.judge.kinds.alpaca_eval import length_control
from tests.judge.test_run import Row, make_call, read
from tests.llm.fake_server import Answer, FakeServer, completion

GAMED = ("NullModel", "Qwen-14B-Chat")


@pytest.fixture(scope="module")
def folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A df_gamed.csv of the hub's form: real annotations of two models, made-up difficulties."""
    draw = random.Random(7)
    difficulty = [round(draw.gauss(0, 1), 6) for _ in range(805)]
    made = tmp_path_factory.mktemp("gamed")
    with (made / "df_gamed.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(length_control.COLUMNS)
        for model in GAMED:
            name = f"oracles/alpaca_eval/{model}/weighted_alpaca_eval_gpt4_turbo/annotations.json"
            for index, row in enumerate(json.loads((shared_data.parent / name).read_text())):
                delta = (len(row["output_1"]) - len(row["output_2"])) / 1000
                preference = row["preference"] - 1
                table.writerow([model, index, difficulty[index], preference, delta, False])
    return made


@pytest.fixture(autouse=True)
def made_up_file_stands_for_alpaca_evals(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(length_control, "GAMED_DIGEST", file_digest(folder / "df_gamed.csv"))


@pytest.fixture(scope="module")
def files(shared_data: Path) -> tuple[list[Row], list[Row]]:
    baseline = json.loads((shared_data / "alpaca_eval/gpt4_1106_preview_outputs.json").read_text())
    name = "oracles/mini_lima/338-qwen-prompt1-results/model_outputs.json"
    stored = json.loads((shared_data.parent / name).read_text())
    by_text = {row["instruction"]: row["output"] for row in stored}
    outputs = [
        {"instruction": row["instruction"], "output": by_text[row["instruction"]], "generator": "m"}
        for row in baseline
    ]
    return outputs, baseline


def weighs(body: Row, seen: int) -> Answer:
    """Favours the longer output, and cannot be read for a few."""
    prompt = body["messages"][-1]["content"]
    first, _, second = prompt.partition('"model_identifier": "M"')
    share = 0.9 if len(first) - 500 > len(second) else 0.2
    raw = completion("m")
    other = "x" if len(prompt) % 50 == 0 else "M"
    top = [("x" if other == "x" else "m", share), (other, 1 - share)]
    tokens = [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in top]
    raw["choices"][0]["logprobs"] = {"content": [{**tokens[0], "top_logprobs": tokens}]}
    return web.json_response(raw)


def lc_call(tmp_path: Path, server: FakeServer, rows: Any, folder: Path, **more: Any) -> Any:
    return make_call(
        tmp_path,
        server.endpoint(concurrency=64),
        *rows,
        "alpaca_eval",
        annotator="weighted_alpaca_eval_gpt4_turbo",
        length_control={"folder": {"path": str(folder)}},
        asks=1,
        **more,
    )


def test_the_figure_is_the_packages_own_and_nothing_is_written_into_it(
    tmp_path: Path,
    folder: Path,
    files: tuple[list[Row], list[Row]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pandas as pd
    from alpaca_eval.metrics import glm_winrate

    own_hub = glm_winrate.hf_hub_download
    weights = Path(glm_winrate.__file__).parent / "weights"
    before = {p: p.stat().st_mtime_ns for p in weights.rglob("*")}
    with FakeServer(weighs) as server:
        call = lc_call(tmp_path, server, files, folder)
        result = judge.run(call)
    assert glm_winrate.hf_hub_download is own_hub
    assert {p: p.stat().st_mtime_ns for p in weights.rglob("*")} == before
    monkeypatch.setattr(
        glm_winrate, "hf_hub_download", lambda **asked: str(folder / asked["filename"])
    )
    rows = pd.DataFrame(read(call, "annotations.json"))
    theirs = glm_winrate.get_length_controlled_winrate(rows, save_weights_dir=None)
    ours = result.metrics["length_controlled_win_rate"]
    assert ours.value == pytest.approx(theirs["length_controlled_winrate"], abs=1e-9)
    assert ours.standard_error == pytest.approx(theirs["lc_standard_error"], abs=1e-9)
    raw = result.metrics["win_rate"]
    assert raw.judged == ours.judged < ours.expected == 805
    assert set(ours.to_json()) == {"value", "standard_error", "judged", "expected"}
    # The judge favours long outputs, and the model's are the shorter ones.
    assert ours.value > raw.value + 1


def test_the_file_itself_may_be_named_in_place_of_its_folder(
    tmp_path: Path, folder: Path, files: tuple[list[Row], list[Row]]
) -> None:
    of_another_name = tmp_path / "gamed.csv"
    shutil.copyfile(folder / "df_gamed.csv", of_another_name)
    figures = []
    for place in (folder, of_another_name):
        with FakeServer(weighs) as server:
            result = judge.run(lc_call(tmp_path / f"call-{place.name}", server, files, place))
        figures.append(result.metrics["length_controlled_win_rate"])
    assert figures[0] == figures[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:804], "these prompts are 804 instructions"),
        (lambda rows: [rows[1], rows[0], *rows[2:]], "other instructions or another order"),
        (
            lambda rows: [{**rows[0], "instruction": "Another one."}, *rows[1:]],
            "other instructions or another order",
        ),
    ],
)
def test_it_is_refused_for_other_prompts_before_anything_is_paid_for(
    tmp_path: Path, folder: Path, files: Any, change: Any, said: str
) -> None:
    outputs, baseline = (change(rows) for rows in files)
    with FakeServer(weighs) as server:
        with pytest.raises(InputError, match=said):
            judge.run(lc_call(tmp_path, server, (outputs, baseline), folder))
        assert server.requests == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, r"names no folder with df_gamed\.csv"),
        (lambda text: text.replace("instruction_difficulty", "hardness", 1), "no column instr"),
        (lambda text: "\n".join(text.splitlines()[:500]), "row 499 of .* does not give"),
        (lambda text: text.replace("NullModel,3,", "NullModel,30,"), "row 3 of .* does not give"),
        (lambda text: "\n".join(text.splitlines()[:1]), "row 0 of .* does not give"),
        (lambda text: text + "\n", "is not AlpacaEval's: its sha256 is [0-9a-f]{64}, AlpacaEval's"),
    ],
)
def test_a_file_that_cannot_be_used_is_bad_input_before_anything_is_paid_for(
    tmp_path: Path, folder: Path, files: Any, change: Any, said: str
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    if change is not None:
        (broken / "df_gamed.csv").write_text(change((folder / "df_gamed.csv").read_text()))
    with FakeServer(weighs) as server:
        with pytest.raises(InputError, match=said):
            judge.run(lc_call(tmp_path, server, files, broken))
        assert server.requests == []
