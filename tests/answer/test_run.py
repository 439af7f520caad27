"""Answers: in order, ended where they should end, the same however they were batched or interrupted."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.answer.answer import Decoding
from harness.answer.decoding import decode
from harness.answer.decoding.batch import sample
from harness.answer.decoding.batch_size import Sizes
from harness.answer.decoding.decode import Decoder, Made, end_tokens, generation_settings
from harness.answer.decoding.stops import Stops
from harness.answer.engines.transformers.engine import finish
from harness.answer.run import run
from harness.errors import HarnessError, InputError
from harness.modeling.load import bytes_tokenizer, load_model
from harness.spec.model_source import ModelSource
from harness.train import run as train
from tests.modeling.calls import (
    EXAMPLES,
    answer_call,
    outputs,
    random_model,
    template,
    train_call,
    write_jsonl,
)

TOLD = [row["instruction"] for row in EXAMPLES]
PROMPTS: list[dict[str, Any]] = [
    {"instruction": TOLD[0]},
    {"instruction": "Please, please: " + TOLD[10], "dataset": "made"},
    {"instruction": TOLD[7], "dataset": "made"},
    {"instruction": "Count.", "input": "a b"},
    {"instruction": TOLD[2], "dataset": "made"},
    {"instruction": "Go on.", "dataset": "made"},
    {"instruction": TOLD[9], "dataset": "made"},
    {"instruction": TOLD[5] + " " + TOLD[8], "dataset": "made"},
]
GREEDY = {"max_new_tokens": 10}
SAMPLED = {"max_new_tokens": 10, "temperature": 3.0, "seed": 5}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A train artefact whose model says different things of different lengths."""
    call = train_call(
        tmp_path_factory.mktemp("trained"),
        epochs=30,
        learning_rate=1e-2,
        model=random_model(attention_dropout=0.0),
    )
    train.run(call)
    return call.folder


def model_in(trained: Path) -> Any:
    source = ModelSource.model_validate({"path": str(trained / "model")})
    return load_model(source, {}, bytes_tokenizer(), "float32", "cpu")


def answered(folder: Path, trained: Path, **settings: Any) -> list[str]:
    folder.mkdir(exist_ok=True)
    call = answer_call(folder, PROMPTS, trained=trained, **{"decoding": GREEDY} | settings)
    run(call)
    return [row["output"] for row in outputs(call)]


def plain_greedy(model: Any, ids: list[int], limit: int, end: int) -> list[int]:
    """Greedy decoding as it is defined: one text, no cache, the likeliest token each time."""
    made: list[int] = []
    with torch.no_grad():
        while len(made) < limit:
            token = int(model(torch.tensor([ids + made])).logits[0, -1].argmax())
            if token == end:
                break
            made.append(token)
    return made


def test_greedy_outputs_are_those_of_the_definition_in_the_prompts_order(
    tmp_path: Path, trained: Path
) -> None:
    call = answer_call(tmp_path, PROMPTS, trained=trained, batch_size=3, decoding=GREEDY)
    result = run(call)
    tokenizer, model = bytes_tokenizer(), model_in(trained)
    rows = outputs(call)
    for prompt, row in zip(PROMPTS, rows, strict=True):
        said = prompt["instruction"] + ("\n" + prompt["input"] if "input" in prompt else "")
        ids = tokenizer(f"Q: {said}\nA:")["input_ids"]
        made = plain_greedy(model, ids, 10, tokenizer.eos_token_id)
        text = tokenizer.decode(made, skip_special_tokens=True)
        assert row.get("generated", row["output"]) == text
        assert row["output"] == text.strip()
        assert row["tokens"] == len(made)
        assert row["finish_reason"] == ("length" if len(made) == 10 else "stop")
    assert [row["instruction"] for row in rows] == [p["instruction"] for p in PROMPTS]
    assert [row.get("dataset") for row in rows] == [p.get("dataset") for p in PROMPTS]
    assert [row.get("input") for row in rows] == [p.get("input") for p in PROMPTS]
    assert {row["generator"] for row in rows} == {"model"}
    assert {row["finish_reason"] for row in rows} == {"stop", "length"}
    assert len({row["output"] for row in rows}) > 4, "a model that says one thing shows nothing"
    counts = result.counts
    assert counts["prompts"] == counts["answered"] + counts["empty"] == len(PROMPTS)
    assert counts["tokens"] == sum(row["tokens"] for row in rows)
    assert counts["cut_at_limit"] == sum(row["finish_reason"] == "length" for row in rows)
    assert result.keep == ["model_outputs.json"]
    told = "6 of 8 answers are judged without white space at their ends"
    assert [note.partition(":")[0] for note in result.notes] == [told]


def test_a_base_model_with_random_weights_answers_and_says_what_it_is(tmp_path: Path) -> None:
    result = run(answer_call(tmp_path, PROMPTS, model=random_model(seed=3)))
    assert result.used["base_model"] == "random"
    assert result.seeds == {"model": 3}
    assert result.notes[0] == "the model had random weights and no training"


def test_how_many_answers_were_made_at_a_time_is_told_and_how_it_was_chosen_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model()
    for name in ("cpu", "given", "chosen"):
        (tmp_path / name).mkdir()
    calls = {
        "cpu": answer_call(tmp_path / "cpu", PROMPTS, model=model, batch_size=None),
        "given": answer_call(tmp_path / "given", PROMPTS, model=model, batch_size=3),
        "chosen": answer_call(tmp_path / "chosen", PROMPTS, model=model, batch_size=None),
    }
    plain = run(calls["cpu"])
    assert plain.used["batch_size"] == 16
    given = run(calls["given"])
    assert given.used["batch_size"] == 3
    monkeypatch.setattr(decode, "sizes_for", lambda *_: Sizes(2, 30, 2**34))
    chosen = run(calls["chosen"])
    assert chosen.used["batch_size"] == 2
    told = (
        "engine.batch_size was left open: 2 answers were made at a time, for the 16.0 GiB of the "
        "GPU's memory that were free"
    )
    assert told in chosen.notes
    assert not [note for note in plain.notes + given.notes if "batch_size" in note]
    assert outputs(calls["cpu"]) == outputs(calls["given"]) == outputs(calls["chosen"])


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED])
def test_outputs_depend_neither_on_the_batches_nor_on_the_order_of_prompts(
    tmp_path: Path, trained: Path, decoding: dict[str, Any]
) -> None:
    one = answered(tmp_path / "one", trained, batch_size=3, decoding=decoding)
    for batch_size in (1, 2, 8):
        for batching in ("sorted", "continuous"):
            folder = tmp_path / f"{batching} {batch_size}"
            settings = {"batch_size": batch_size, "batching": batching, "decoding": decoding}
            assert answered(folder, trained, **settings) == one
    turned = tmp_path / "turned"
    turned.mkdir()
    call = answer_call(
        turned, PROMPTS[::-1], trained=trained, decoding=decoding, batching="continuous"
    )
    run(call)
    assert [row["output"] for row in outputs(call)][::-1] == one


def test_a_subset_is_answered_as_the_whole_set_is(tmp_path: Path, trained: Path) -> None:
    whole = answered(tmp_path / "whole", trained, decoding=SAMPLED)
    call = answer_call(tmp_path, PROMPTS[2:5], trained=trained, decoding=SAMPLED)
    run(call)
    assert [row["output"] for row in outputs(call)] == whole[2:5]


def test_sampling_depends_on_its_seed_and_greedy_does_not(tmp_path: Path, trained: Path) -> None:
    sampled = answered(tmp_path / "a", trained, decoding=SAMPLED)
    assert answered(tmp_path / "b", trained, decoding=SAMPLED) == sampled
    assert answered(tmp_path / "c", trained, decoding=SAMPLED | {"seed": 6}) != sampled
    greedy = answered(tmp_path / "d", trained, decoding=GREEDY)
    assert answered(tmp_path / "e", trained, decoding=GREEDY | {"seed": 6}) == greedy


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED])
@pytest.mark.parametrize("torn", [b"", b'{"index": 4, "outp'])
def test_an_interrupted_run_goes_on_to_the_same_file_and_answers_nothing_twice(
    tmp_path: Path,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    decoding: dict[str, Any],
    torn: bytes,
) -> None:
    settings = {"trained": trained, "batch_size": 3, "decoding": decoding}
    (tmp_path / "whole").mkdir()
    whole = answer_call(tmp_path / "whole", PROMPTS, **settings)
    run(whole)
    (tmp_path / "cut").mkdir()
    cut = answer_call(tmp_path / "cut", PROMPTS, **settings)
    real, asked = Decoder.answers, []

    def three(self: Decoder, prompts: Any, on_step: Any) -> Iterator[Made]:
        asked.append([one.index for one in prompts])
        for number, made in enumerate(real(self, prompts, on_step)):
            if number == 3 and len(asked) == 1:
                raise KeyboardInterrupt
            yield made

    monkeypatch.setattr(Decoder, "answers", three)
    with pytest.raises(KeyboardInterrupt):
        run(cut)
    assert not (cut.folder / "model_outputs.json").exists()
    kept = [json.loads(line)["index"] for line in (cut.folder / "outputs.jsonl").open()]
    assert len(kept) == 3
    with (cut.folder / "outputs.jsonl").open("ab") as file:
        file.write(torn)
    torch.manual_seed(99)  # A new process knows nothing of the old one's generator.
    run(cut)
    assert (cut.folder / "model_outputs.json").read_bytes() == (
        whole.folder / "model_outputs.json"
    ).read_bytes()
    assert sorted(kept + asked[1]) == list(range(len(PROMPTS))), "each is answered once"


def test_an_answer_ends_at_the_first_stop_text_which_is_left_out(
    tmp_path: Path, trained: Path
) -> None:
    whole = answered(tmp_path / "whole", trained)
    assert "tea tea te" in whole
    call = answer_call(
        tmp_path,
        PROMPTS,
        trained=trained,
        prompt=template(stop=["no such text", "a t"]),
        decoding=GREEDY,
    )
    run(call)
    for before, row in zip(whole, outputs(call), strict=True):
        if "a t" in before:
            assert row["output"] == before[: before.index("a t")]
            assert row["finish_reason"] == "stop"
            made = before.index("a t") + len("a t")
            assert row["tokens"] == made, "generation must stop there, not be cut later"
        else:
            assert row["output"] == before


def test_an_ended_row_keeps_nothing_of_what_follows_its_end() -> None:
    tokenizer = bytes_tokenizer()
    a, b = tokenizer("ab")["input_ids"]

    def row(tokens: list[int], stop: list[str]) -> Any:
        made = finish(Made(0, tokens, "stop"), Stops(tokenizer, stop), 4)
        return made.output, made.tokens, made.prompt_tokens

    assert row([a, b], []) == ("ab", 2, 4)
    assert row([], []) == ("", 0, 4)
    assert row([a, b], ["b"]) == ("a", 2, 4)
    assert row([a, b, a], ["ba", "b"]) == ("a", 3, 4)


def test_decoding_is_what_the_row_says_whatever_the_model_folder_says(
    tmp_path: Path, trained: Path
) -> None:
    artefact = tmp_path / "artefact"
    shutil.copytree(trained / "model", artefact / "model")
    settings = artefact / "model" / "generation_config.json"
    config = json.loads(settings.read_text())
    config |= {"do_sample": True, "top_k": 2, "repetition_penalty": 5.0, "max_length": 3}
    settings.write_text(json.dumps(config))
    for name, decoding in (("greedy", GREEDY), ("sampled", SAMPLED)):
        plain = answered(tmp_path / f"{name} plain", trained, decoding=decoding)
        assert answered(tmp_path / name, artefact, decoding=decoding) == plain


def test_sampling_is_from_the_whole_distribution_and_not_from_its_top() -> None:
    logits = torch.zeros(4000, 256)
    drawn = sample(logits, 1.0, 1.0, torch.linspace(0, 1 - 1e-9, 4000).double())
    assert torch.bincount(drawn, minlength=256).min() >= 15, "a top_k was at work"


def test_sampled_shares_are_those_of_the_softmax_at_this_temperature() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0, 1.0]])
    draws = torch.linspace(0, 1 - 1e-9, 20000).double()
    for temperature in (0.5, 1.0, 2.0):
        drawn = sample(logits.expand(20000, 4), temperature, 1.0, draws)
        shares = torch.bincount(drawn, minlength=4) / 20000
        assert torch.allclose(shares, (logits[0] / temperature).softmax(-1), atol=1e-3)


def test_top_p_keeps_the_smallest_set_that_has_its_probability_whatever_the_tokens_order() -> None:
    logits = torch.tensor([[0.1, 0.5, 0.05, 0.35]]).log()
    draws = torch.linspace(0, 1 - 1e-9, 8500).double()
    for top_p, kept in (
        (0.3, {1}),
        (0.5, {1}),
        (0.51, {1, 3}),
        (0.86, {0, 1, 3}),
        (1.0, {0, 1, 2, 3}),
    ):
        drawn = sample(logits.expand(8500, 4), 1.0, top_p, draws)
        assert set(drawn.tolist()) == kept, top_p
        if top_p == 0.51:
            assert abs((drawn == 1).sum() / 8500 - 0.5 / 0.85) < 1e-3, "what is kept sums to 1"


def test_all_ends_that_the_model_knows_end_an_answer(trained: Path) -> None:
    tokenizer, model = bytes_tokenizer(), model_in(trained)
    model.generation_config.eos_token_id = [7, 9]
    settings = generation_settings(model, tokenizer, Decoding(), width=28)
    assert settings.eos_token_id == sorted([7, 9, tokenizer.eos_token_id])
    assert end_tokens(model, tokenizer, [3]) == sorted([3, *settings.eos_token_id])
    assert settings.max_new_tokens == 100, "no more than the model has positions for"


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([{"instruction": "a"}, {"instruction": "b"}, {"instruction": "a"}],
         r"prompts\.jsonl:3: prompt 2 is the same as prompt 0 \(.*prompts\.jsonl:1\)"),
        ([{"instruction": "a"}, {"instruction": " "}], r"prompts\.jsonl:2: an empty instruction"),
        ([{"instruction": "a"}, {"instruction": None, "x": 1}],
         r"prompts\.jsonl:2: `instruction` must be a text"),
        ([{"instruction": "a"}, {"instruction": "b" * 122}],
         "prompt 1 has 128 tokens, the model takes 128 with the answer: 'bbb"),
    ],
)  # fmt: skip
def test_prompts_that_cannot_be_answered_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], fault: str
) -> None:
    with pytest.raises(InputError, match=fault):
        run(answer_call(tmp_path, rows))


def test_the_same_instruction_with_another_input_is_another_prompt(tmp_path: Path) -> None:
    rows = [{"instruction": "Add.", "input": "1 2"}, {"instruction": "Add.", "input": "3 4"}]
    assert run(answer_call(tmp_path, rows)).counts["prompts"] == 2


def test_only_the_first_prompts_are_answered_when_the_row_says_so(tmp_path: Path) -> None:
    call = answer_call(tmp_path, [*PROMPTS, PROMPTS[0]])
    call.params["answer"]["prompts"]["first"] = 2
    run(call)
    assert [row["instruction"] for row in outputs(call)] == [p["instruction"] for p in PROMPTS[:2]]


def test_a_prompt_set_may_be_a_json_list(tmp_path: Path) -> None:
    call = answer_call(tmp_path, PROMPTS)
    path = Path(call.params["answer"]["prompts"]["file"])
    path.write_text(json.dumps(PROMPTS, indent=1))
    assert run(call).counts["prompts"] == len(PROMPTS)


def test_bfloat16_answers_too(tmp_path: Path) -> None:
    assert run(answer_call(tmp_path, PROMPTS, precision="bfloat16")).counts["prompts"] == 8


@pytest.mark.parametrize("batching", ["sorted", "continuous"])
def test_the_last_position_is_used_and_none_beyond_it(
    tmp_path: Path, trained: Path, batching: str
) -> None:
    rows = [{"instruction": "b" * n} for n in (120, 100, 60, 119, 20)]
    call = answer_call(
        tmp_path, rows, trained=trained, batching=batching, batch_size=2,
        decoding={"max_new_tokens": 500, "temperature": 5.0},
    )  # fmt: skip
    run(call)
    for row in outputs(call):
        assert row["prompt_tokens"] == len(row["instruction"]) + 6
        if row["finish_reason"] == "length":
            assert row["tokens"] + row["prompt_tokens"] == 128, "a prompt's room is its own"
    assert "length" in {row["finish_reason"] for row in outputs(call)}


def test_without_a_limit_an_answer_may_take_all_the_room_that_the_model_has(
    tmp_path: Path, trained: Path
) -> None:
    call = answer_call(
        tmp_path, [{"instruction": "b" * 110}], trained=trained,
        decoding={"max_new_tokens": None, "temperature": 5.0},
    )  # fmt: skip
    run(call)
    [row] = outputs(call)
    assert (row["finish_reason"], row["tokens"] + row["prompt_tokens"]) == ("length", 128)


THOUGHT = "\n<think>\nHm.\n</think>\n\n Yes. \n"


@pytest.mark.parametrize(
    ("settings", "output"),
    [
        ({}, "<think>\nHm.\n</think>\n\n Yes."),
        ({"strip": False}, THOUGHT),
        ({"reasoning": "strip"}, "Yes."),
        ({"reasoning": "strip", "strip": False}, "\n\n\n Yes. \n"),
    ],
)
@pytest.mark.parametrize("kind", ["null", "reference"])
def test_what_is_judged_of_an_answer_is_what_the_row_says_and_all_of_it_stays(
    tmp_path: Path, kind: str, settings: dict[str, Any], output: str
) -> None:
    rows = [{"instruction": "a"}]
    write_jsonl(tmp_path / "given.jsonl", [{"instruction": "a", "output": THOUGHT}])
    engine = {"output": THOUGHT} if kind == "null" else {"outputs": str(tmp_path / "given.jsonl")}
    call = with_engine(tmp_path, rows, {"kind": kind} | engine)
    call.params["answer"] |= {"strip": True} | settings
    result = run(call)
    [row] = outputs(call)
    assert row["output"] == output
    assert row.get("generated", output) == THOUGHT
    assert result.counts["stripped"] == (output != THOUGHT)
    assert row["flags"] == ["reasoning"]
    assert [found.kind for found in result.findings] == ["reasoning"]


def test_given_outputs_stay_as_they_are_so_that_a_control_is_the_baseline(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": "\nYes. "}]
    given = write_jsonl(tmp_path / "given.jsonl", rows)
    call = with_engine(tmp_path, rows, {"kind": "reference", "outputs": str(given)})
    assert run(call).counts["stripped"] == 0
    assert outputs(call)[0]["output"] == "\nYes. "


@pytest.mark.parametrize("strip", [None, False])
def test_an_answer_of_a_real_model_is_judged_without_white_space_at_its_ends(
    tmp_path: Path, real_model: Path, strip: bool | None
) -> None:
    call = answer_call(
        tmp_path, [{"instruction": "Count: 1, 2,"}], model={"path": str(real_model)},
        prompt=template("{instruction}"), decoding={"max_new_tokens": 2}, strip=strip,
    )  # fmt: skip
    result = run(call)
    [row] = outputs(call)
    generated = row.get("generated", row["output"])
    assert generated.startswith(" ")
    assert row["output"] == (generated if strip is False else generated.strip())
    assert result.counts["stripped"] == (strip is None)
    again = replayed(call, tmp_path / "again")
    assert run(again).counts == result.counts
    assert outputs(again) == outputs(call)


def test_flags_stand_beside_each_output_and_are_counted(tmp_path: Path) -> None:
    rows = [{"instruction": str(n)} for n in range(4)]
    call = answer_call(tmp_path, rows, decoding={"max_new_tokens": 4})
    result = run(call)
    cut = [row["finish_reason"] == "length" for row in outputs(call)]
    assert any(cut)
    assert [("cut" in row["flags"]) for row in outputs(call)] == cut
    assert result.counts["flag_cut"] == result.counts["cut_at_limit"] == sum(cut)
    (found,) = (f for f in result.findings if f.kind == "empty_or_truncated")
    assert found.evidence["cut"] == sum(cut)


def test_progress_is_told_before_the_first_answer_has_ended(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, dict[str, Any]]] = []
    monkeypatch.setattr("harness.artefact.events.SHORTEST_PAUSE_S", 0.0)
    monkeypatch.setattr(
        "harness.artefact.events.progress", lambda _, done, *a, **info: told.append((done, info))
    )
    answered(tmp_path, trained, decoding=GREEDY)
    before = [info["tokens"] for done, info in told if done == 0]
    assert len(before) > 2
    assert before == sorted(before)
    assert before[-1] > before[0] == 0
    assert all(info["seconds_left"] is None for _, info in told), "8 answers are not enough"
    assert [done for done, _ in told].count(len(PROMPTS)) == 1


def with_engine(folder: Path, rows: list[dict[str, Any]], engine: dict[str, Any]) -> Any:
    call = answer_call(folder, rows)
    call.params["answer"]["engine"] = engine
    call.params["model"] = None
    call.params["answer"]["template"] = None
    return call


def test_a_null_model_says_the_same_to_every_prompt(tmp_path: Path) -> None:
    call = with_engine(tmp_path, PROMPTS, {"kind": "null", "output": "42"})
    result = run(call)
    assert {row["output"] for row in outputs(call)} == {"42"}
    assert len(outputs(call)) == result.counts["answered"] == len(PROMPTS)
    assert "control" in result.notes[0]


def test_a_reference_gives_the_baselines_outputs_by_instruction_and_input(tmp_path: Path) -> None:
    rows = [{"instruction": "Add.", "input": "1"}, {"instruction": "Add."}]
    given = tmp_path / "baseline.json"
    told = [
        {"instruction": "Other", "output": "x"},
        {"instruction": "Add.", "output": "nothing", "finish_reason": "stop"},
        {"instruction": "Add.", "input": "1", "output": "one"},
    ]
    given.write_text(json.dumps(told))
    call = with_engine(tmp_path, rows, {"kind": "reference", "outputs": str(given)})
    assert run(call).notes == ["the answers are given outputs, and no model's of this row"]
    assert [row["output"] for row in outputs(call)] == ["one", "nothing"]
    given.write_text(json.dumps(told[:2]))
    with pytest.raises(InputError, match=r"lacks outputs for 1 of 2 prompts: 'Add\.'"):
        run(call)
    given.write_text(json.dumps([*told, {"instruction": "Add.", "output": "else"}]))
    with pytest.raises(InputError, match="a second, other output"):
        run(call)


def test_the_controls_need_no_torch(tmp_path: Path) -> None:
    given = tmp_path / "baseline.json"
    given.write_text(json.dumps([p | {"output": "said"} for p in PROMPTS]))
    for name, engine in (
        ("null", {"kind": "null"}),
        ("reference", {"kind": "reference", "outputs": str(given)}),
    ):
        (tmp_path / name).mkdir()
        call = with_engine(tmp_path / name, PROMPTS, engine)
        call.write(tmp_path / "CALL.json")
        code = (
            "import sys; from pathlib import Path; from harness.artefact.call import StageCall\n"
            "from harness.answer.run import run\n"
            f"run(StageCall.read(Path({str(tmp_path / 'CALL.json')!r})))\n"
            "assert not {'torch', 'transformers'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
        assert len(outputs(call)) == len(PROMPTS)


def replayed(call: Any, folder: Path) -> Any:
    """The call again as a replay of its own artefact."""
    import dataclasses

    folder.mkdir()
    inputs = {**call.inputs, "recorded": call.work}
    return dataclasses.replace(call, work=str(folder), inputs=inputs, replay=True)


def test_a_replay_needs_no_model_and_makes_the_file_again(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = answer_call(tmp_path, PROMPTS, trained=trained, decoding=SAMPLED)
    result = run(call)
    monkeypatch.setattr("harness.answer.engines.transformers.engine.load_row_model", None)
    again = replayed(call, tmp_path / "again")
    repeated = run(again)
    assert (again.folder / "model_outputs.json").read_bytes() == (
        call.folder / "model_outputs.json"
    ).read_bytes()
    assert repeated.counts == result.counts
    assert repeated.findings == result.findings


def test_a_replay_computes_flags_anew_and_refuses_other_prompts(
    tmp_path: Path, trained: Path
) -> None:
    call = answer_call(tmp_path, PROMPTS, trained=trained, decoding=GREEDY)
    run(call)
    path = call.folder / "model_outputs.json"
    rows = outputs(call)
    rows[0]["flags"] = ["loop"]
    path.write_text(json.dumps(rows))
    again = replayed(call, tmp_path / "again")
    run(again)
    assert "loop" not in outputs(again)[0]["flags"]
    rows[1]["instruction"] = "Another."
    path.write_text(json.dumps(rows))
    with pytest.raises(HarnessError, match="output 1 is of another prompt"):
        run(again)


def test_a_prompt_of_two_sets_is_answered_once_and_stands_in_both(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = answer_call(tmp_path, PROMPTS[:3], trained=trained, decoding=GREEDY)
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(PROMPTS[5]) + "\n" + json.dumps(PROMPTS[0]) + "\n")
    files = {"one": call.params["answer"]["prompts"]["file"], "two": str(other)}
    call.params["answer"]["prompts"] = {"files": files}
    asked = []
    real = Decoder.answers
    monkeypatch.setattr(Decoder, "answers", lambda self, p, _: asked.extend(p) or real(self, p))
    result = run(call)
    rows = outputs(call)
    assert [row["dataset"] for row in rows] == ["one"] * 3 + ["two"] * 2
    assert rows[4]["output"] == rows[0]["output"]
    assert len(asked) == 4
    assert result.counts["prompts"] == 5
    assert any("was answered once" in note for note in result.notes)
