"""The data card: known figures, denominators, the same bytes, and text that cannot break it."""

import json
import math
import os
import random
import statistics
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.artefact.call import StageCall
from harness.data.dataset import DatasetExample
from harness.data.dropped import Tally
from harness.gen.card import card, plots
from harness.gen.recipe import RecipeResult

HUB = {"hub": {"id": "org/model", "revision": "a" * 40}}
BYTES = {"random": {"config": {"model_type": "qwen2"}, "tokenizer": "bytes"}}


def example(number: int, instruction: str, **fields: Any) -> DatasetExample:
    return DatasetExample(id=f"e{number}", instruction=instruction, **{"output": "yes", **fields})


def examples(*instructions: str) -> list[DatasetExample]:
    return [example(i, text) for i, text in enumerate(instructions)]


def call(folder: Path, tokenizer: dict[str, Any] | None = None) -> StageCall:
    folder.mkdir(exist_ok=True)
    return StageCall("gen", "0" * 64, {}, {}, str(folder), tokenizer=tokenizer)


def measured(
    tmp_path: Path,
    made: RecipeResult | Sequence[DatasetExample],
    tokenizer: dict[str, Any] | None = None,
) -> dict[str, Any]:
    made = made if isinstance(made, RecipeResult) else RecipeResult(list(made))
    return card.measure(call(tmp_path, tokenizer), "import", made)


def full(folder: Path) -> StageCall:
    """A card with every part there is."""
    now = [
        example(
            i,
            f"Write {i} stories about trees",
            input="" if i % 3 else "an oak",
            output="so " * (i + 2),
            rating=float(i % 4),
            is_classification=i % 2 == 0,
            system="Be kind.",
            history=[("hi", "hello")],
        )
        for i in range(12)
    ]
    before = [example(i, e.instruction, output="so") for i, e in enumerate(now)]
    dropped = Tally("tasks", "tasks", 12, Counter(too_short=2, similar=1))
    stage = call(folder, BYTES)
    card.write(stage, "expand", RecipeResult(now, [dropped], counts={"requests": 4}, before=before))
    return stage


def test_the_same_call_writes_the_same_bytes(tmp_path: Path) -> None:
    one, two = full(tmp_path / "one").folder, full(tmp_path / "two").folder
    names = sorted(str(p.relative_to(one)) for p in one.rglob("*") if p.is_file())
    assert names == [
        "card.json",
        "card.md",
        *(f"plots/{n}.png" for n in ("before_after", "lengths", "novelty", "ratings", "verbs")),
    ]
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)
    assert str(tmp_path) not in (one / "card.json").read_text(encoding="utf-8")


def test_plots_hold_no_date_and_no_version(tmp_path: Path) -> None:
    for path in (full(tmp_path).folder / "plots").iterdir():
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG\r\n")
        at, kinds = 8, set()
        while at < len(data):
            (length,) = struct.unpack(">I", data[at : at + 4])
            kinds.add(data[at + 4 : at + 8])
            at += 12 + length
        assert kinds <= {b"IHDR", b"pHYs", b"IDAT", b"IEND"}


def test_plots_of_an_interrupted_run_do_not_stay(tmp_path: Path) -> None:
    stage = call(tmp_path)
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/before_after.png").write_bytes(b"old")
    card.write(stage, "import", RecipeResult(examples("Write a poem", "Draw a cat")))
    assert sorted(p.stem for p in (tmp_path / "plots").iterdir()) == ["lengths", "novelty", "verbs"]


def test_a_single_example_without_a_verb_has_a_card(tmp_path: Path) -> None:
    kept = card.write(call(tmp_path), "import", RecipeResult(examples("日本語")))
    assert kept == ["card.json", "card.md", "plots"]
    assert "left out" in (tmp_path / "card.md").read_text(encoding="utf-8")


def test_matplotlib_gets_a_place_for_its_caches_where_home_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    plots._find_place_for_caches(tmp_path / "work")
    assert "MPLCONFIGDIR" not in os.environ
    monkeypatch.setenv("HOME", os.devnull)
    plots._find_place_for_caches(tmp_path / "work")
    assert os.environ["MPLCONFIGDIR"] == str(tmp_path / "work/.matplotlib")
    monkeypatch.delenv("MPLCONFIGDIR")


def test_percentiles_are_linear_between_ranks_as_numpy_has_them(tmp_path: Path) -> None:
    rng = random.Random(1)
    lengths = [int(rng.lognormvariate(3, 1)) for _ in range(997)]
    data = [example(i, "Write a poem", output="so " * n) for i, n in enumerate(lengths)]
    found = measured(tmp_path, data)["lengths"]["words"]["output"]
    expected = {str(p): float(np.percentile(lengths, p)) for p in (0, 5, 25, 50, 75, 95, 100)}
    assert found["percentiles"] == pytest.approx(expected, abs=1e-6)
    assert found["mean"] == pytest.approx(statistics.mean(lengths), abs=1e-6)
    assert found["n"] == sum(b["count"] for b in found["bins"]) == 997
    for b in found["bins"]:
        assert b["count"] == sum(b["from"] <= n <= b["to"] for n in lengths)


def test_lengths_of_inputs_are_of_the_examples_that_have_one(tmp_path: Path) -> None:
    data = [example(0, "Add"), example(1, "Add", input="1 2 3"), example(2, "Add", input="4")]
    found = measured(tmp_path, data)
    assert found["with_input"] == 2
    assert found["lengths"]["words"]["input"]["n"] == 2
    assert found["lengths"]["words"]["input"]["mean"] == 2.0


def test_preference_data_has_lengths_of_both_answers(tmp_path: Path) -> None:
    data = [
        DatasetExample("a", "Say it", chosen="a b c", rejected="a"),
        DatasetExample("b", "Do", chosen="", rejected="x y z"),
    ]
    found = measured(tmp_path, data, tokenizer=BYTES)
    assert found["kind"] == "preference"
    assert {n: s["mean"] for n, s in found["lengths"]["words"].items()} == {
        "instruction": 1.5,
        "input": None,
        "chosen": 1.5,
        "rejected": 2.0,
    }
    assert found["lengths"]["tokens"]["rejected"]["mean"] == 3.0


def test_duplicates_are_the_examples_that_repeat_an_earlier_one(tmp_path: Path) -> None:
    data = [
        example(0, "Add", input="1 1", output="2"),
        example(1, "Add", input="1 1", output="2"),
        example(2, "Add", input="1 1", output="two"),
        example(3, "Add", input="1 2", output="3"),
        example(4, "Sub", input="1 2", output="3"),
    ]
    found = measured(tmp_path, data)["duplicates"]
    assert found == {"example": 1, "instruction_input": 2, "instruction": 3}


def test_shares_count_only_what_is_known(tmp_path: Path) -> None:
    data = [
        example(0, "a", is_classification=True, rating=4.5, origin="seed"),
        example(1, "b", is_classification=False, rating=4.5, history=[("x", "y"), ("z", "w")]),
        example(2, "c", rating=2.0, system="S"),
        example(3, "d", system="S", rating=math.nan),
    ]
    found = measured(tmp_path, data)
    assert found["classification"] == {"yes": 1, "known": 2}
    assert found["origins"] == {"seed": 1, "generated": 3}
    assert found["history"] == {"examples": 1, "most_turns": 2}
    assert found["system"] == {"examples": 2, "distinct": 1}
    assert found["ratings"] == {
        "rated": 3,
        "unrated": 1,
        "mean": pytest.approx(11 / 3, abs=1e-6),
        "bins": [{"from": 2.0, "to": 2.0, "count": 1}, {"from": 4.5, "to": 4.5, "count": 2}],
    }


def test_many_different_ratings_are_counted_in_ten_ranges(tmp_path: Path) -> None:
    data = [example(i, "a", rating=i / 10) for i in range(101)]
    bins = measured(tmp_path, data)["ratings"]["bins"]
    assert [b["count"] for b in bins] == [10] * 9 + [11]
    assert (bins[0]["from"], bins[-1]["to"]) == (0.0, 10.0)


def test_rewritten_outputs_are_compared_with_what_they_were(tmp_path: Path) -> None:
    before = [example(i, "a", output="so " * n) for i, n in enumerate((1, 2, 3, 4))]
    after = [example(i, "a", output="so " * n) for i, n in enumerate((5, 2, 1))]
    found = measured(tmp_path, RecipeResult(after, before=before))["rewritten"]
    numbers = ("given", "compared", "longer", "as_long", "shorter")
    assert tuple(found[n] for n in numbers) == (4, 3, 1, 1, 1)
    assert found["before"]["percentiles"]["100"] == 3
    assert found["after"]["percentiles"]["100"] == 5


def test_novelty_is_the_highest_score_with_any_earlier_instruction(tmp_path: Path) -> None:
    found = measured(
        tmp_path,
        examples(
            "one two three four",
            "one two three five",  # F = 3/4
            "日本語",
            "six seven",  # 0
            "one two three four",  # 1
            "one two",  # p = 1, r = 1/2: F = 2/3
        ),
    )["novelty"]
    assert (found["examples"], found["comparable"], found["measured"]) == (6, 4, 4)
    assert found["sample_seed"] is None
    assert {b["from"]: b["count"] for b in found["bins"] if b["count"]} == {
        0.0: 1,
        0.6: 1,
        0.7: 1,
        0.9: 1,
    }
    assert found["mean"] == pytest.approx((0.75 + 0 + 1 + 2 / 3) / 4, abs=1e-6)


def test_no_instruction_of_alpagasus_is_closer_to_another_than_alpacas_filter_lets(
    shared_data: Path,
) -> None:
    rows = json.loads((shared_data / "alpagasus/claude_t45.json").read_text(encoding="utf-8"))
    found = card.novelty([row["instruction"] for row in rows[:1500]])
    assert found["measured"] == 1499
    assert 0.6 < found["percentiles"]["100"] <= 0.7


def test_a_large_data_set_is_measured_on_a_seeded_sample_against_all_earlier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(3)
    words = [f"w{i}" for i in range(30)]
    texts = [" ".join(rng.choices(words, k=6)) for _ in range(200)]
    whole = card._highest(texts, range(1, 200))
    _, steps = card._comparisons(texts)
    monkeypatch.setattr(card, "NOVELTY_STEPS", steps // 4)
    found = card.novelty(texts)
    assert found == card.novelty(texts)
    assert found["sample_seed"] == card.NOVELTY_SEED
    assert found["comparable"] == 199
    assert 40 <= found["measured"] <= 50
    chosen = sorted(random.Random(card.NOVELTY_SEED).sample(range(1, 200), found["measured"]))
    expected = math.fsum(whole[place - 1] for place in chosen) / len(chosen)
    assert found["mean"] == pytest.approx(expected, abs=1e-6)


def test_bytes_are_counted_as_the_bytes_tokenizer_does(tmp_path: Path) -> None:
    found = measured(tmp_path, [example(0, "é <eos>", output="<pad>")], tokenizer=BYTES)
    assert found["tokenizer"] == {"name": "bytes", "not_counted": None}
    assert found["lengths"]["tokens"]["instruction"]["mean"] == 4.0  # two bytes, a space, <eos>
    assert found["lengths"]["tokens"]["output"]["mean"] == 1.0


def test_the_rows_tokenizer_counts_without_special_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(source: Any, inputs: dict[str, str]) -> Any:
        assert inputs == {"hub": "/there"}

        def tokenize(texts: list[str], add_special_tokens: bool, verbose: bool) -> Any:
            return {"input_ids": [[0] * (len(t) + 2 * add_special_tokens) for t in texts]}

        return tokenize

    monkeypatch.setattr(card, "load_tokenizer", load)
    monkeypatch.setattr(card, "TOKENIZED_AT_ONCE", 2)
    data = examples("one", "three", "eleven")
    stage = call(tmp_path, HUB)
    stage.inputs["tokenizer"] = "/there"
    found = card.measure(stage, "import", RecipeResult(data))
    assert found["tokenizer"] == {"name": "org/model at revision aaaaaaaaaaaa", "not_counted": None}
    assert found["lengths"]["tokens"]["instruction"]["percentiles"]["50"] == 5
    assert found["lengths"]["tokens"]["instruction"]["n"] == 3


def raises(error: Exception) -> Any:
    def load(source: Any, inputs: dict[str, str]) -> Any:
        raise error

    return load


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ImportError("no", name="transformers"), "the package transformers is not installed"),
        (ValueError("bad\n  merges"), "ValueError: bad merges"),
    ],
)
def test_a_tokenizer_that_cannot_be_had_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    monkeypatch.setattr(card, "load_tokenizer", raises(error))
    stage = call(tmp_path, HUB)
    stage.inputs["tokenizer"] = "/there"
    card.write(stage, "import", RecipeResult(examples("Write a poem")))
    found = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert found["tokenizer"]["not_counted"] == reason
    assert found["lengths"]["tokens"] is None
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert f"not counted with org/model at revision aaaaaaaaaaaa: {reason}" in text


def test_a_hub_model_that_is_not_there_is_not_asked_for(tmp_path: Path) -> None:
    found = measured(tmp_path, examples("Write a poem"), HUB)
    assert "not on this machine" in found["tokenizer"]["not_counted"]


def test_the_reason_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    source = {"path": {"path": str(tmp_path / "my-model"), "sha256": "b" * 64}}
    tokenizer = measured(tmp_path, examples("Write a poem"), source)["tokenizer"]
    assert tokenizer["name"] == "my-model (sha256 bbbbbbbbbbbb)"
    assert tokenizer["not_counted"].startswith("my-model lacks tokenizer.json")


def test_simulated_replies_are_marked_and_others_are_not(tmp_path: Path) -> None:
    for name, simulated in (("simulated", True), ("real", False)):
        card.write(
            call(tmp_path / name), "alpaca", RecipeResult(examples("Write a poem")), simulated
        )
        text = (tmp_path / name / "card.md").read_text(encoding="utf-8")
        assert ("simulated" in text) is simulated


def test_text_from_the_data_cannot_break_the_table(tmp_path: Path) -> None:
    rule = "a|b\n<script> `x` \x1b[31m [link](u)"
    made = RecipeResult(examples("Write a poem"), [Tally("st*ep*", "tasks", 1, Counter({rule: 1}))])
    card.write(call(tmp_path), "import", made)
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if "script" in line)
    assert row == (
        r"| st\*ep\* | dropped: a\|b \<script\> \`x\`  \[31m \[link\](u) | 1 | tasks | 50.0 % |"
    )


def test_card_md_is_made_from_card_json_alone(tmp_path: Path) -> None:
    folder = full(tmp_path).folder
    stored = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    drawn = [p.stem for p in (folder / "plots").iterdir()]
    text = (folder / "card.md").read_text(encoding="utf-8")
    assert card.in_markdown(stored, drawn) == text
    assert all(f"](plots/{name}.png)" in text for name in drawn)
    assert r"| tasks | dropped: too\_short | 2 | tasks | 13.3 % |" in text
    assert "requests: 4" in text


def test_a_tokenizer_that_is_all_in_its_file_counts_as_transformers_does(tmp_path: Path) -> None:
    from harness.gen.card.card import _plain_encoder, _token_counter
    from harness.modeling.load import load_tokenizer
    from harness.spec.model_source import ModelSource

    folder = Path(__file__).parents[3] / "specs" / "smoke" / "tokenizer"
    source = ModelSource.model_validate(
        {"random": {"config": {"model_type": "qwen2"}, "tokenizer": {"path": str(folder)}}}
    )
    texts = [
        "Name the capital of France.",
        "<eos> in a text<pad>",
        "",
        "naïve  café\n\n日本",
        "a" * 999,
    ]
    full = load_tokenizer(source, {})
    wanted = [len(ids) for ids in full(texts, add_special_tokens=False)["input_ids"]]
    assert _plain_encoder(str(folder)) is not None
    assert _token_counter(source, str(folder), lambda done: None)(texts) == wanted
