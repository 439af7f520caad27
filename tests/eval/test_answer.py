"""Answers: in order, ended where they should end, the same however they were batched or interrupted."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import train
from harness.errors import InputError
from harness.eval import answer
from harness.eval.answer import batches, finish, generation_settings, run
from harness.modeling.load import bytes_tokenizer, load_model
from harness.spec.models import Decoding, ModelSource
from tests.modeling.calls import (
    EXAMPLES,
    answer_call,
    outputs,
    random_model,
    template,
    train_call,
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
        assert row["output"] == tokenizer.decode(made, skip_special_tokens=True)
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
    assert result.notes == []


def test_a_base_model_with_random_weights_answers_and_says_what_it_is(tmp_path: Path) -> None:
    result = run(answer_call(tmp_path, PROMPTS, model=random_model(seed=3)))
    assert result.used["base_model"] == "random"
    assert result.seeds == {"model": 3}
    assert result.notes == ["the model had random weights and no training"]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_greedy_outputs_do_not_depend_on_the_batches(
    tmp_path: Path, trained: Path, batch_size: int
) -> None:
    one = answered(tmp_path / "one", trained, batch_size=3)
    assert answered(tmp_path / "other", trained, batch_size=batch_size) == one


def test_batches_hold_each_prompt_once_and_are_of_like_length() -> None:
    made = batches([5, 9, 5, 1, 7], 2)
    assert made == [[1, 4], [0, 2], [3]]


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
    real, asked = answer._answer_batch, []

    def third_fails(*args: Any) -> Any:
        asked.append(args[3])
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(answer, "_answer_batch", third_fails)
    with pytest.raises(KeyboardInterrupt):
        run(cut)
    assert not (cut.folder / "model_outputs.json").exists()
    with (cut.folder / "outputs.jsonl").open("ab") as file:
        file.write(torn)
    torch.manual_seed(99)  # A new process knows nothing of the old one's generator.
    run(cut)
    assert (cut.folder / "model_outputs.json").read_bytes() == (
        whole.folder / "model_outputs.json"
    ).read_bytes()
    for line in (cut.folder / "outputs.jsonl").open():
        json.loads(line)
    assert len(asked) == 4
    assert asked[3] == asked[2], "only the batch that was not finished is answered again"


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
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id

    def row(tokens: list[int], stop: list[str] | None = None, at: int | None = None) -> Any:
        made = finish(0, tokens, {end}, tokenizer, stop or [], at)
        return made.output, made.finish_reason, made.tokens

    assert row([a, b, end, pad]) == ("ab", "stop", 2)
    assert row([end, pad, pad]) == ("", "stop", 0)
    assert row([a, b, a]) == ("aba", "length", 3)
    assert row([a, b, end, a]) == ("ab", "stop", 2)
    assert row([a, b, a, pad], ["b"], 2) == ("a", "stop", 2)
    assert row([a, a, b], ["b"], 3) == ("aa", "stop", 3)
    assert row([a, b, a], ["ba", "b"], 2) == ("a", "stop", 2)


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
    tokenizer = bytes_tokenizer()
    flat = random_model(initializer_range=1e-6)
    model = load_model(ModelSource.model_validate(flat), {}, tokenizer, "float32", "cpu")
    settings = generation_settings(
        model, tokenizer, Decoding.model_validate(SAMPLED | {"max_new_tokens": 1}), width=1
    )
    torch.manual_seed(0)
    made = model.generate(torch.tensor([[1]] * 2000), generation_config=settings)
    assert len(set(made[:, 1].tolist())) > 200, "a default top_k of 50 was at work"


def test_all_ends_that_the_model_knows_end_an_answer(trained: Path) -> None:
    tokenizer, model = bytes_tokenizer(), model_in(trained)
    model.generation_config.eos_token_id = [7, 9]
    settings = generation_settings(model, tokenizer, Decoding(), width=28)
    assert settings.eos_token_id == sorted([7, 9, tokenizer.eos_token_id])
    assert settings.max_new_tokens == 100, "no more than the model has positions for"


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([{"instruction": "a"}, {"instruction": "b"}, {"instruction": "a"}],
         r"prompts\.jsonl:3: prompt 2 is the same as prompt 0"),
        ([{"instruction": "a"}, {"instruction": " "}], "prompt 1 has an empty instruction"),
        ([{"instruction": "a"}, {"prompt": "b"}], r"prompts\.jsonl:2: no `instruction`"),
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
