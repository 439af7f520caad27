"""The rate recipe: what is a rating, and what becomes of a reply that is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.artefact.call import StageCall
from harness.data import dataset
from harness.data.dataset import DatasetExample, Lineage
from harness.errors import HarnessError, InputError
from harness.gen import run as gen
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.rate import RateGen
from harness.gen.recipes.rate import recipe as rate
from harness.llm.reply import REFUSED
from harness.spec.base import Endpoint
from tests.helpers import read_jsonl
from tests.llm.fake_server import Answer, FakeServer, failure, last_message, reply

SPECS = Path(__file__).parents[3] / "specs"


pytestmark = pytest.mark.usefixtures("short_waits")


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("4.5", 4.5),
        ("0", 0.0),
        ("5\nIt says 3 things in 2 lines.", 5.0),
        ("\n\n 4 \n", 4.0),
        ("4.\nGood.", 4.0),
        ("Score: 4.5", 4.5),
        ("Accuracy: 4", 4.0),
        ("Accuracy Score: 4", 4.0),
        ("score = 4", 4.0),
        ("Score 3.75", 3.75),
        ("**Score:** 4", 4.0),
        ("**4.5**", 4.5),
        ("4/5", 4.0),
        ("4.5 / 5", 4.5),
        ("Rating: 4 out of 5", 4.0),
        ("4 out of 5.0 stars", 4.0),
        ("4 points", 4.0),
        ("Accuracy: 4, Score: 4.0", 4.0),
    ],
)
def test_one_number_on_the_first_line_is_the_rating(text: str, rating: float) -> None:
    assert rate.read_rating(reply(text), 0, 5) == rating


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty_reply"),
        (" \n\n", "empty_reply"),
        ("**", "empty_reply"),
        ("four", "no_number"),
        ("Good.\n4.5", "no_number"),
        ("Score:\n4.5", "no_number"),
        ("４.５", "no_number"),
        ("这个回答很好。\n5", "no_number"),
        ("nan", "no_number"),
        ("4 5", "several_numbers"),
        ("4,5", "several_numbers"),
        ("4-5", "several_numbers"),
        ("4 or 5", "several_numbers"),
        ("Accuracy: 4, Helpfulness: 5", "several_numbers"),
        ("Score (0-5): 4", "several_numbers"),
        ("The score is 4", "other_words"),
        ("4 because it is good", "other_words"),
        ("4, good", "other_words"),
        ("Not 5", "other_words"),
        ("4+", "other_words"),
        ("4%", "other_words"),
        ("1e0", "several_numbers"),
        ("8/10", "other_scale"),
        ("4/10", "other_scale"),
        ("4 out of 100", "other_scale"),
        ("5.5", "out_of_range"),
        ("-1", "out_of_range"),
        ("Score: 45", "out_of_range"),
        ("6/5", "out_of_range"),
        ("I'm sorry, but I cannot rate this: 5", "refused"),
        ("4 " * 50_000, "other_words"),
    ],
)
def test_anything_else_is_no_rating_and_has_its_reason(text: str, reason: str) -> None:
    assert rate.read_rating(reply(text), 0, 5) == reason


def test_a_number_that_may_have_been_cut_is_no_rating() -> None:
    assert rate.read_rating(reply("4", "length"), 0, 5) == "cut"
    assert rate.read_rating(reply("4\nBecause it is", "length"), 0, 5) == 4
    assert rate.read_rating(reply("", REFUSED), 0, 5) == "refused"


def test_the_range_is_the_specs() -> None:
    assert rate.read_rating(reply("8/10"), 1, 10) == 8
    assert rate.read_rating(reply("4/5"), 1, 10) == "other_scale"
    assert rate.read_rating(reply("0"), 1, 10) == "out_of_range"
    assert rate.read_rating(reply("-1"), -2, 2) == -1


def examples(count: int = 4, **changes: Any) -> list[DatasetExample]:
    return [
        DatasetExample(
            id=f"e{i}",
            instruction=f"Do {i}.",
            input=f"in {i}",
            output=f"out {{input}} {i}",
            rating=1.0,
            lineage=(Lineage("import", "import"),),
            **changes,
        )
        for i in range(count)
    ]


def make(
    tmp_path: Path, endpoint: Any, given: list[DatasetExample], **changes: Any
) -> RecipeResult:
    params = {
        "judge": endpoint.model_dump(mode="json"),
        "prompt": {"path": "r", "text": "{dimension}: {instruction}|{input}|{output}"},
    }
    spec = RateGen.model_validate(params | changes)
    made = spec.make(StageCall("gen", "k", {}, {}, str(tmp_path)), given)
    [step] = made.filters
    assert step.proposed == len(given)
    return made


REPLIES = {"Do 0": "4.5\nGood.", "Do 1": "Score: 2", "Do 2": "8/10", "Do 3": "Rather good. " * 50}


def judged(body: dict[str, Any], seen: int) -> Answer:
    return next(text for start, text in REPLIES.items() if start in last_message(body))


def test_every_example_stays_with_its_rating_or_with_none(tmp_path: Path) -> None:
    given = examples()
    with FakeServer(judged) as server:
        made = make(tmp_path, server.endpoint(), given)
        sent = {last_message(body) for body in server.requests}
        settings = [{k: v for k, v in b.items() if k != "messages"} for b in server.requests]
    assert sent == {f"accuracy: Do {i}.|in {i}|out {{input}} {i}" for i in range(4)}
    # AlpaGasus's sampling.
    assert settings == [{"model": "m", "temperature": 0.0, "top_p": 1.0, "max_tokens": 256}] * 4
    assert [e.rating for e in made.examples] == [4.5, 2.0, None, None]
    for i, (old, new) in enumerate(zip(given, made.examples, strict=True)):
        assert new == old.after(Lineage("rate", "rate", (i,)), rating=new.rating)
    assert (made.filters[0].proposed, made.filters[0].kept) == (4, 4)
    assert made.counts == {
        "rated": 2,
        "unrated": 2,
        "unrated_no_number": 1,
        "unrated_other_scale": 1,
    }
    assert made.seeds == {}
    assert made.files == ["ratings.jsonl", "unrated.jsonl"]
    assert read_jsonl(tmp_path / "ratings.jsonl") == [
        {"id": "e0", "rating": 4.5, "request": 0},
        {"id": "e1", "rating": 2.0, "request": 1},
        {"id": "e2", "rating": None, "request": 2},
        {"id": "e3", "rating": None, "request": 3},
    ]
    assert read_jsonl(tmp_path / "unrated.jsonl") == [
        {"id": "e2", "reason": "other_scale", "request": 2, "reply": "8/10"},
        {"id": "e3", "reason": "no_number", "request": 3, "reply": ("Rather good. " * 50)[:200]},
    ]
    assert made.notes == [
        "2 of 4 examples have no rating (1 no number, 1 other scale): see unrated.jsonl"
    ]


def test_dimension_range_and_sampling_have_their_effect(tmp_path: Path) -> None:
    changes = {"dimension": "helpfulness", "lowest": 1, "highest": 10, "sampling": {"top_p": 0.5}}
    with FakeServer(judged) as server:
        made = make(tmp_path, server.endpoint(), examples(), **changes)
        body = server.requests[0]
    assert last_message(body).startswith("helpfulness: ")
    assert body.keys() == {"model", "messages", "top_p", "temperature", "max_tokens"}
    assert body["top_p"] == 0.5
    assert [e.rating for e in made.examples] == [4.5, 2.0, 8.0, None]


def test_equal_examples_are_each_asked_about(tmp_path: Path) -> None:
    one = examples(1)[0]
    with FakeServer(judged) as server:
        made = make(tmp_path, server.endpoint(), [one, one, one])
        assert len(server.requests) == 3
    assert [e.lineage[-1].requests for e in made.examples] == [(0,), (1,), (2,)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "empty_reply"), ("I'm sorry, but no.", "refused"), ("很好", "no_number")],
)
def test_a_judge_that_rates_nothing_leaves_no_data_set(
    tmp_path: Path, text: str, reason: str
) -> None:
    with FakeServer(lambda body, seen: text) as server:
        made = make(tmp_path, server.endpoint(), examples())
    assert made.examples == []
    assert made.filters[0].dropped == {reason: 4}
    assert [(row["id"], row["rule"]) for row in made.dropped] == [
        (f"e{i}", reason) for i in range(4)
    ]


def test_an_interrupted_stage_goes_on_without_asking_again(tmp_path: Path) -> None:
    answered: list[str] = []
    most = 5

    def script(body: dict[str, Any], seen: int) -> Answer:
        if len(answered) == most:
            return failure(500)
        answered.append(last_message(body))
        return "3"

    with FakeServer(script) as server:
        endpoint = server.endpoint(max_attempts=1, concurrency=2)
        with pytest.raises(HarnessError):
            make(tmp_path, endpoint, examples(12))
        most = -1
        made = make(tmp_path, endpoint, examples(12))
    assert len(answered) == len(set(answered)) == 12
    assert made.counts == {"rated": 12, "unrated": 0}


def test_a_given_transcript_stands_for_the_judge(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with FakeServer(judged) as server:
        first = make(tmp_path / "first", server.endpoint(), examples())
    recorded = {"path": str(tmp_path / "first/transcript.jsonl")}
    second = make(tmp_path / "second", server.endpoint(), examples(), transcript=recorded)
    assert second.examples == first.examples
    with pytest.raises(HarnessError, match="transcript"):
        make(tmp_path / "second", server.endpoint(), examples(5), transcript=recorded)


def test_the_stage_fails_where_nothing_was_rated_and_says_why(tmp_path: Path) -> None:
    work, data = tmp_path / "work", tmp_path / "data"
    work.mkdir()
    data.mkdir()
    dataset.write_rows(data / dataset.DATA, (e.row() for e in examples()))
    with FakeServer(lambda body, seen: "No.") as server:
        spec = RateGen.model_validate(
            {
                "judge": server.endpoint().model_dump(mode="json"),
                "prompt": {"path": "r", "text": "{instruction} {output}"},
            }
        )
        params = {"gen": spec.model_dump(mode="json")}
        call = StageCall("gen", "k", params, {"data": str(data)}, str(work))
        with pytest.raises(HarnessError, match="rate: 4 examples, dropped 4 no number"):
            gen.run(call)
    assert not (work / dataset.DATA).exists()
    assert len(read_jsonl(work / "dropped.jsonl")) == len(read_jsonl(work / "unrated.jsonl")) == 4


@pytest.mark.parametrize(
    ("given", "said"),
    [([], "an empty data set"), (examples(2, chosen="a", rejected="b"), "holds preferences")],
)
def test_data_without_outputs_is_refused_before_any_call(
    tmp_path: Path, given: list[DatasetExample], said: str
) -> None:
    with FakeServer(judged) as server:
        with pytest.raises(InputError, match=said):
            make(tmp_path, server.endpoint(), given)
        assert server.requests == []


def test_the_simulated_judge_tells_the_smoke_rows_good_answers_from_its_bad_ones(
    tmp_path: Path,
) -> None:
    given = [
        DatasetExample(f"e{i}", **row)
        for i, row in enumerate(json.loads((SPECS / "smoke/data/rated.json").read_text()))
    ]
    prompt = {"path": "r", "text": (SPECS / "alpagasus/prompts/rate.txt").read_text()}
    made = make(tmp_path, Endpoint(model="j", simulated={}), given, prompt=prompt)
    # In turn: right, right with a full stop, in a sentence, no answer, wrong.
    assert made.counts == {"rated": 40, "unrated": 0}
    for i, example in enumerate(made.examples):
        assert example.rating is not None
        low, high = ((4.5, 5), (4.5, 5), (3.5, 3.5), (0, 2), (0, 2))[i % 5]
        assert low <= example.rating <= high, example


def test_a_judge_that_keeps_to_no_form_leaves_examples_unrated(tmp_path: Path) -> None:
    prompt = {"path": "r", "text": (SPECS / "alpagasus/prompts/rate.txt").read_text()}
    judge = Endpoint(model="j", simulated={"faults": {"format": 0.3, "refuse": 0.1, "500": 0.2}})
    made = make(tmp_path, judge, examples(60), prompt=prompt)
    assert made.counts["unrated_no_number"] > 5
    assert made.counts["unrated_refused"] > 0
    assert made.counts["rated"] == sum(e.rating is not None for e in made.examples) > 20
