"""Questions of several turns: each answered after the model's own answers to those before."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.answer.prompts import Prompt, read_prompts
from harness.answer.run import run
from harness.answer.turns import next_turn
from harness.errors import InputError
from harness.row.load import load_rows
from harness.run.ready import check_row
from harness.spec.prompts import PromptSet
from tests.helpers import ROOT
from tests.llm.fake_server import FakeServer
from tests.modeling.calls import answer_call, outputs, random_model, write_jsonl

QUESTIONS = [
    {"question_id": 7, "category": "words", "turns": ["Say a word.", "Say another."]},
    {"question_id": 8, "category": "words", "turns": ["Say a letter."]},
    {"question_id": 9, "category": "numbers", "turns": ["Count to two.", "Go on."]},
]
VICUNA = {"name": "vicuna"}
REPLAYED = "model_outputs.json"


def read(folder: Path, rows: list[dict[str, Any]]) -> list[Prompt]:
    file = str(write_jsonl(folder / "q.jsonl", rows))
    return read_prompts(PromptSet.model_validate({"file": file}), None)


def test_a_later_turn_is_asked_after_the_answers_to_those_before(tmp_path: Path) -> None:
    prompts = read(tmp_path, QUESTIONS)
    assert [(p.instruction, p.later, p.turn) for p in prompts[:2]] == [
        ("Say a word.", ("Say another.",), 1),
        ("Say a letter.", (), 1),
    ]
    later = next_turn(prompts, ["tea", "t", "one, two"])
    assert [p.history for p in later] == [
        (("Say a word.", "tea"),),
        (("Count to two.", "one, two"),),
    ]
    assert [p.asked for p in later] == ["Say another.", "Go on."]
    assert later[0].instruction == "User: Say a word.\n\nAssistant: tea\n\nUser: Say another."
    assert (later[0].turn, later[0].later, later[0].fields["question_id"]) == (2, (), 7)


def test_a_set_with_an_instruction_beside_turns_is_read_as_before(tmp_path: Path) -> None:
    [prompt] = read(tmp_path, [{"instruction": "Say a word.", "turns": 3}])
    assert (prompt.instruction, prompt.later) == ("Say a word.", ())


@pytest.mark.parametrize(
    ("turns", "fault"),
    [
        ("one", "must be a list of the user's texts"),
        ([], "must be a list"),
        (["a", " "], "turn 2 of"),
    ],
)
def test_turns_that_are_no_texts_are_refused(tmp_path: Path, turns: Any, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        read(tmp_path, [{"turns": turns}])


def test_the_rows_model_answers_turn_by_turn_and_a_replay_and_a_resumed_run_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.answer.engines.transformers import engine

    model = random_model(max_position_embeddings=512)
    options: dict[str, Any] = {"prompt": VICUNA, "decoding": {"max_new_tokens": 6}}
    call = answer_call(tmp_path / "whole", QUESTIONS, model=model, **options)
    result = run(call)
    rows = outputs(call)
    assert [row.get("turn") for row in rows] == [1, None, 1, 2, 2]
    assert rows[3]["instruction"].startswith(
        f"User: Say a word.\n\nAssistant: {rows[0]['output']}\n\n"
    )
    assert result.counts["prompts"] == 5
    assert "3 questions of several turns: 5 answers" in result.notes

    cut = answer_call(tmp_path / "cut", QUESTIONS, model=model, **options)
    real, asked = engine._make, []

    def failing(path: Path, decoder: Any, requests: Any, *args: Any) -> Any:
        asked.append(len(requests))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(path, decoder, requests, *args)

    monkeypatch.setattr(engine, "_make", failing)
    with pytest.raises(KeyboardInterrupt):
        run(cut)
    run(cut)
    assert outputs(cut) == rows
    assert asked == [3, 2, 0, 2], "the first turns are not answered again"

    (tmp_path / "replay").mkdir()
    recorded = {"recorded": str(call.folder)}
    again = replace(call, replay=True, inputs=recorded, work=str(tmp_path / "replay"))
    run(again)
    assert (again.folder / REPLAYED).read_bytes() == (call.folder / REPLAYED).read_bytes()


def test_a_server_is_sent_the_turns_before_and_a_replay_finds_both_in_one_transcript(
    tmp_path: Path,
) -> None:
    def answer(body: dict[str, Any], _: int) -> Any:
        return f"{len(body['messages'])} messages"

    with FakeServer(answer) as server:
        engine = {"kind": "endpoint", "endpoint": server.endpoint().model_dump()}
        call = answer_call(tmp_path / "whole", QUESTIONS, engine=engine)
        result = run(call)
    assert [row["output"] for row in outputs(call)] == ["1 messages"] * 3 + ["3 messages"] * 2
    lines = (call.folder / "transcript.jsonl").read_text().splitlines()
    assert len(lines) == 5
    assert result.cost["calls"] == 5
    (tmp_path / "replay").mkdir()
    shutil.copy(call.folder / "transcript.jsonl", tmp_path / "replay")
    again = replace(call, replay=True, work=str(tmp_path / "replay"))
    replayed = run(again)
    assert outputs(again) == outputs(call)
    assert replayed.cost["replayed_calls"] == 5


def test_a_judge_of_single_answers_and_a_template_without_turns_are_refused_beforehand(
    tmp_path: Path,
) -> None:
    from harness.artefact.keys import Files

    smoke = ROOT / "specs" / "smoke"
    turns = write_jsonl(tmp_path / "q.jsonl", QUESTIONS)
    spec = f"extends: {smoke / 'eval_endpoint.yaml'}\nrow: two-turns\n"
    spec += f"eval: {{answer: {{prompts: {{file: {turns}}}}}}}\n"
    (tmp_path / "row.yaml").write_text(spec)
    [loaded] = load_rows([tmp_path / "row.yaml"])
    with pytest.raises(InputError, match="several turns, and the judge preference reads one"):
        check_row(loaded.row, Files(None, None))
    text = (tmp_path / "row.yaml").read_text().replace("eval_endpoint", "base")
    (tmp_path / "row.yaml").write_text(text)
    [loaded] = load_rows([tmp_path / "row.yaml"])
    with pytest.raises(InputError, match="turns"):
        check_row(loaded.row, Files(None, None))
