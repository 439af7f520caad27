"""Faults of an evaluation that are told before a row's first stage runs."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.artefact.keys import Files
from harness.errors import InputError
from harness.judge.kinds.flow_judge import PRESETS
from harness.modeling import load
from harness.row.load import load_rows
from harness.row.twin import scaled
from harness.run import ready
from tests.helpers import evaluation, planned, write_row

MISSING = "prompts have no baseline output"


def checked(folder: Path, **judge: Any) -> None:
    """Look at a row whose judge has these settings in place of the usual ones."""
    row(folder, **judge)
    (plan,) = planned(folder / "runs", folder / "one.yaml")
    ready.check(plan, Files(None, None))


def row(folder: Path, prompts: Any = None, **judge: Any) -> Path:
    parts = evaluation(folder)
    if judge:
        parts["judge"] = judge
    if prompts is not None:
        lines = [json.dumps(prompt) + "\n" for prompt in prompts]
        (folder / "asked.jsonl").write_text("".join(lines))
        parts["answer"]["prompts"] = {"file": "asked.jsonl"}
    return write_row(folder, eval=parts)


ASKED = {"judge": {"model": "judge"}, "reference": "prompts.jsonl"}


def test_a_sound_row_is_let_through(tmp_path: Path) -> None:
    checked(tmp_path)
    checked(tmp_path, kind="alpaca_eval", annotator="chatgpt", **ASKED)


def test_a_baseline_that_lacks_prompts_is_told(tmp_path: Path) -> None:
    prompts = [{"instruction": "Say no."}, {"instruction": "Say yes."}]
    row(tmp_path, prompts)
    (plan,) = planned(tmp_path / "runs", tmp_path / "one.yaml")
    with pytest.raises(InputError, match=f"row one: 1 of 2 {MISSING}") as error:
        ready.check(plan, Files(None, None))
    assert "letter by letter" in error.value.hint


@pytest.mark.parametrize("kind", ["alpaca_eval", "preference", "grading"])
def test_a_baseline_record_without_an_output_is_told_with_its_line(
    tmp_path: Path, kind: str
) -> None:
    texts = {
        "preference": {"prompt": "{instruction}{output_a}{output_b}"},
        "grading": {"system": "Grade.", "prompt": "{question}{answer_1}{answer_2}"},
    }.get(kind, {})
    for text in texts.values():
        (tmp_path / f"{text}.txt").write_text(text)
    named = {field: f"{text}.txt" for field, text in texts.items()}
    prompts = [{"instruction": "Say yes.", "output": "Yes."}, {"instruction": "Say no."}]
    judge = {"kind": kind, **named, "judge": {"model": "judge"}, "reference": "asked.jsonl"}
    spec = row(tmp_path, prompts, **judge)
    (loaded,), (plan,) = load_rows([spec]), planned(tmp_path / "runs", spec)
    for check in (
        lambda: ready.check(plan, Files(None, None)),
        lambda: ready.check_row(loaded.row, Files(None, None)),
    ):
        with pytest.raises(InputError, match=r"asked\.jsonl:2: no `output`"):
            check()


def test_prompts_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    row(tmp_path, [{"what": "is this"}])
    (plan,) = planned(tmp_path / "runs", tmp_path / "one.yaml")
    with pytest.raises(InputError, match="instruction"):
        ready.check(plan, Files(None, None))


def test_earlier_turns_that_the_template_has_no_place_for_are_told(tmp_path: Path) -> None:
    turns = [("user", "Hi."), ("assistant", "Hello."), ("user", "Bye.")]
    row(tmp_path, [{"messages": [{"role": role, "content": text} for role, text in turns]}])
    (plan,) = planned(tmp_path / "runs", tmp_path / "one.yaml")
    with pytest.raises(InputError, match="has no earlier turns"):
        ready.check(plan, Files(None, None))


def test_an_annotator_that_the_package_lacks_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no annotator 'chatgtp'") as error:
        checked(tmp_path, kind="alpaca_eval", annotator="chatgtp", **ASKED)
    assert "chatgpt" in error.value.hint


def test_length_control_off_alpaca_evals_instructions_is_told(tmp_path: Path) -> None:
    control = {"folder": str(tmp_path)}
    with pytest.raises(InputError, match="defined for AlpacaEval's own 805 instructions"):
        checked(tmp_path, kind="alpaca_eval", length_control=control, **ASKED)


def test_a_rubric_that_shows_what_no_prompt_has_is_told(tmp_path: Path) -> None:
    engine = {"kind": "endpoint", "endpoint": {"model": "judge"}}
    with pytest.raises(InputError, match="shows the judge the context"):
        checked(tmp_path, kind="flow_judge", rubric="response_faithfulness_5point", engine=engine)


def test_given_outputs_that_lack_prompts_are_told(tmp_path: Path) -> None:
    parts = evaluation(tmp_path)
    (tmp_path / "given.json").write_text(json.dumps([{"instruction": "Other.", "output": "x"}]))
    parts["answer"]["engine"] = {"kind": "reference", "outputs": "given.json"}
    write_row(tmp_path, eval=parts)
    (plan,) = planned(tmp_path / "runs", tmp_path / "one.yaml")
    with pytest.raises(InputError, match="lacks outputs for 1 of 1 prompts"):
        ready.check(plan, Files(None, None))


@pytest.mark.parametrize(
    ("train", "is_refused"),
    [(None, True), ({"steps": 1, "method": "lora"}, True), ({"steps": 1}, False)],
    ids=["untrained", "an adapter", "trained"],
)
def test_random_weights_that_no_training_leaves_in_a_folder_are_not_for_vllm(
    tmp_path: Path, train: dict[str, Any] | None, is_refused: bool
) -> None:
    parts = evaluation(tmp_path)
    parts["answer"]["engine"] = {"kind": "vllm"}
    gen = {} if train else {"gen": None}
    path = write_row(tmp_path, eval=parts, train=train, **gen)
    (plan,), (loaded,) = planned(tmp_path / "runs", path), load_rows([path])
    for check in (
        lambda: ready.check(plan, Files(None, None)),
        lambda: ready.check_row(loaded.row, Files(None, None)),
    ):
        if is_refused:
            with pytest.raises(InputError, match="vLLM serves a model from a folder"):
                check()
        else:
            check()
    ready.check_row(scaled(loaded).row, Files(None, None))


def test_what_is_finished_is_not_looked_at(tmp_path: Path) -> None:
    row(tmp_path, [{"instruction": "Say yes."}])
    (plan,) = planned(tmp_path / "runs", tmp_path / "one.yaml")
    for stage in plan.stages:
        stage.status = "reuse"
    ready.check(plan, Files(None, None))


def test_the_packages_rubrics_are_known_with_their_scales_and_inputs() -> None:
    from harness.judge.kinds.flow_judge import RubricJudge
    from harness.judge.kinds.flow_judge.rubrics import load_rubric

    engine = {"kind": "endpoint", "endpoint": {"model": "judge"}}
    for name, scale in PRESETS.items():
        ours = RubricJudge(rubric=name, engine=engine).known_rubric()
        theirs = load_rubric(name)
        assert ours.inputs == theirs.inputs
        scores = [line.score for line in theirs.scores]
        assert (min(scores), max(scores)) == scale


def test_a_rubric_that_the_package_lacks_is_refused_in_the_spec(tmp_path: Path) -> None:
    from harness.row.load import SpecFaults, load_rows

    path = row(tmp_path, kind="flow_judge", rubric="response_faithfullness_5point")
    tree = yaml.safe_load(path.read_text())
    tree["eval"]["judge"]["engine"] = {"kind": "endpoint", "endpoint": {"model": "judge"}}
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(SpecFaults, match="did you mean response_faithfulness_5point"):
        load_rows([path])


@pytest.mark.parametrize(
    ("gen", "said"),
    [
        ({"shown": 2}, "gen.shown asks for 2 examples a request, and there are 1 seeds"),
        ({"recipe": "naive", "prompt": None, "examples": None, "growth": 1.0, "shown": 2},
         "gen.shown asks for 2 pairs a request, and there are 1 seeds"),
    ],
)  # fmt: skip
def test_fewer_seeds_than_a_request_shows_are_told(
    tmp_path: Path, gen: dict[str, Any], said: str
) -> None:
    spec = write_row(tmp_path)
    tree = yaml.safe_load(spec.read_text())
    tree["gen"] = {k: v for k, v in {**tree["gen"], **gen}.items() if v is not None}
    if gen.get("recipe"):
        for name in ("tasks_prompt", "given_prompt", "new_prompt") if "growth" in gen else ():
            tree["gen"][name] = "tasks.txt"
    spec.write_text(yaml.safe_dump(tree))
    (plan,) = planned(tmp_path / "runs", spec)
    with pytest.raises(InputError, match=said):
        ready.check(plan, Files(None, None))


@pytest.mark.parametrize("recipe", ["random_k", "longest_k"])
@pytest.mark.parametrize("rated", [False, True])
def test_more_examples_than_an_import_holds_cannot_be_chosen_and_that_is_told(
    tmp_path: Path, recipe: str, rated: bool
) -> None:
    tmp_path.joinpath("rows.jsonl").write_text('{"instruction": "q", "output": "a"}\n' * 3)
    tmp_path.joinpath("rate.txt").write_text("{instruction} {input} {output}")
    judge = {"model": "judge", "simulated": {}}
    rating = {"recipe": "rate", "prompt": "rate.txt", "judge": judge}
    for k in (3, 4):
        steps = [rating] * rated + [{"recipe": recipe, "k": k}]
        spec = write_row(tmp_path, gen=[{"recipe": "import", "file": "rows.jsonl"}, *steps])
        (plan,) = planned(tmp_path / "runs", spec)
        if k == 3:
            ready.check(plan, Files(None, None))
            continue
        with pytest.raises(
            InputError, match=f"{recipe} asks for 4 examples, and the data set holds 3"
        ):
            ready.check(plan, Files(None, None))


@pytest.mark.parametrize(
    ("config", "train", "said"),
    [
        ({"num_attention_heads": 3}, {}, "hidden_size 16 is no multiple of num_attention_heads 3"),
        ({}, {"method": "lora", "lora": {"rank": 1, "target_modules": ["q_proj", "nope"]}},
         "has no linear layer nope"),
    ],
)  # fmt: skip
def test_a_random_model_whose_layers_do_not_fit_is_told(
    tmp_path: Path, config: dict[str, Any], train: dict[str, Any], said: str
) -> None:
    small = {"model_type": "qwen2", "hidden_size": 16, "num_attention_heads": 2}
    model = {"random": {"config": {**small, **config}, "tokenizer": "bytes"}}
    spec = write_row(tmp_path, model=model, train={"steps": 1, **train})
    (plan,) = planned(tmp_path / "runs", spec)
    with pytest.raises(InputError, match=said):
        ready.check(plan, Files(None, None))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs/spec/v1\noid sha256:0\nsize 9\n", "a pointer of Git LFS"),
        (b"half a file", "no safetensors file, or was cut"),
        (b"\x02" + b"\0" * 7 + b"[]", "no safetensors header"),
        (None, "bytes of"),
    ],
)
def test_weights_that_are_not_whole_are_told_before_anything_loads_them(
    tmp_path: Path, real_model: Path, content: bytes | None, said: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in real_model.iterdir():
        (folder / path.name).symlink_to(path)
    load.check_model(folder)
    weights = folder / "model.safetensors"
    if content is None:
        with weights.open("rb") as file:
            content = file.read(1_000_000)
    weights.unlink()
    weights.write_bytes(content)
    with pytest.raises(InputError, match=f"model.safetensors cannot be read: .*{said}"):
        load.check_model(folder)


LORA, MERGED = {"method": "lora"}, {"method": "lora", "lora": {"merge": True}}


@pytest.mark.parametrize(
    ("train", "engine", "refused"),
    [
        (LORA, {"precision": "float32"}, True),
        ({"method": "qlora"}, {"precision": "float32"}, True),
        (MERGED, {"precision": "float32"}, False),
        ({}, {"precision": "float32"}, False),
        (LORA, {"precision": "bfloat16"}, False),
        (LORA, {"precision": "float32", "base_url": "http://elsewhere:8000/v1"}, False),
    ],
)
def test_an_adapter_that_vllm_would_serve_in_float32_is_refused_by_run_and_by_validate(
    tmp_path: Path, train: dict[str, Any], engine: dict[str, Any], refused: bool
) -> None:
    parts = evaluation(tmp_path)
    parts["answer"]["engine"] = {"kind": "vllm", **engine}
    hub = {"hub": {"id": "some/model", "revision": "0" * 40}}
    spec = write_row(tmp_path, eval=parts, train={"steps": 1, **train}, model=hub)
    (plan,) = planned(tmp_path / "runs", spec)
    checks = [
        lambda: ready.check(plan, Files(None, None)),
        lambda: ready.check_row(plan.row, Files(None, None)),
    ]
    for check in checks:
        if refused:
            with pytest.raises(InputError, match="adapters in bfloat16 and float16 alone"):
                check()
        else:
            check()


def test_fewer_prompts_than_a_bridge_needs_are_told(tmp_path: Path) -> None:
    """Before its judge is paid for what no verdict could use."""
    files = {
        "outputs": [{"instruction": "Say no.", "output": "No."}],
        "annotations": [{"instruction": "Say no.", "output_2": "No.", "preference": 2.0}],
    }
    model = {}
    for name, records in files.items():
        text = json.dumps(records)
        (tmp_path / f"{name}.json").write_text(text)
        model[name] = {"path": f"{name}.json", "sha256": sha256(text.encode()).hexdigest()}
    judge = {"model": "retired", "annotator": "chatgpt", "baseline": "prompts"}
    reported = {"judge": judge, "bridge": [model], "win_rate": 40}
    parts = evaluation(tmp_path)
    parts["judge"] = {"kind": "alpaca_eval", "annotator": "chatgpt", **ASKED}
    path = write_row(tmp_path, eval=parts, reported=reported)
    (loaded,) = load_rows([path])
    with pytest.raises(InputError, match="of its 1 verdict 1 are on the 1 prompt that"):
        ready.check_row(loaded.row, Files(None, None))


def test_a_tokenizer_without_the_chat_template_that_is_asked_for_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    parts = evaluation(tmp_path)
    path = write_row(tmp_path, eval=parts, model={"path": "model"}, template="tokenizer")
    (loaded,), (plan,) = load_rows([path]), planned(tmp_path / "runs", path)
    checks = (
        lambda: ready.check_row(loaded.row, Files(None, None)),
        lambda: ready.check(plan, Files(None, None)),
    )
    for check in checks:
        with pytest.raises(InputError, match="brings no chat template"):
            check()
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    for check in checks:
        check()
