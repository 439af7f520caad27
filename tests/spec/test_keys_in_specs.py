"""A key that stands in a spec where none belongs is never printed back."""

from pathlib import Path

import pytest
import yaml

from harness.errors import HarnessError, masked
from tests.helpers import command, evaluation, write_row

KEYS = (
    "sk-proj-Ab3dEf6hIj9kLm2nOp5q",
    "sk-ant-api03-zyxwvu",
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz",
    "gsk_0123456789abcdefABCDEF",
    "xai-abcdef0123456789",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA1234567890abcdefghij",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "0123456789abcdef0123456789ABCDEF",
    "Zx81Qm4Lk2Vn7Rt5Yp3Ws9Dg6Hj",
)
ADVICE = "is the name of the environment variable that holds the key"


def endpoint(**changes: str) -> dict[str, str]:
    return {"model": "m", **changes}


def said(folder: Path, judge: dict[str, str]) -> str:
    write_row(folder / "specs", eval=evaluation(folder / "specs", judge))
    done = command("validate", folder / "specs" / "one.yaml")
    assert done.exit_code == 2, done.output
    return done.output


@pytest.mark.parametrize("key", KEYS)
def test_a_key_in_the_place_of_its_variables_name_is_refused_and_not_printed(
    tmp_path: Path, key: str
) -> None:
    told = said(tmp_path, endpoint(api_key_env=key))
    assert key not in told
    assert key[4:] not in told
    assert "api_key_env: " in told
    assert ADVICE in told
    assert "revoke it" in told


def test_of_what_can_be_no_variables_name_nothing_is_printed_whatever_it_looks_like(
    tmp_path: Path,
) -> None:
    told = said(tmp_path, endpoint(api_key_env="my secret-word"))
    assert "secret-word" not in told
    assert ADVICE in told


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "TEAM_2_KEY_2026", "hf_hub_download_token", "K"]
)
def test_names_of_variables_are_taken(tmp_path: Path, name: str) -> None:
    part = evaluation(tmp_path / "specs", endpoint(api_key_env=name))
    write_row(tmp_path / "specs", eval=part)
    assert command("validate", tmp_path / "specs" / "one.yaml").exit_code == 0


@pytest.mark.parametrize("key", KEYS)
def test_a_key_in_any_other_field_is_masked_in_the_error(tmp_path: Path, key: str) -> None:
    for judge in (
        endpoint(api_key=key), endpoint(base_url=key), endpoint(timeout_s=key), endpoint(mode=key),
        endpoint(**{key: "x"}),
    ):  # fmt: skip
        assert key not in said(tmp_path, judge)
    assert ADVICE in said(tmp_path, endpoint(api_key=key))
    part = evaluation(tmp_path / "specs") | {"judge": {"kind": key}}
    write_row(tmp_path / "specs", eval=part, row=key)
    assert key not in command("validate", tmp_path / "specs").output
    assert key not in command("run", key).output
    assert key not in command("show", key).output


@pytest.mark.parametrize(
    "url",
    [
        "http://me:pa55word@host/v1", "http://host/v1?key=pa55word", "http://me:pa55/word@host/v1",
        "ftp://me:pa55word@host/v1",
    ],
)  # fmt: skip
def test_a_password_in_a_url_is_not_printed(tmp_path: Path, url: str) -> None:
    told = said(tmp_path, endpoint(base_url=url))
    assert "pa55" not in told
    assert "does not belong in a URL" in told


@pytest.mark.parametrize("key", KEYS)
def test_a_key_in_a_file_that_is_no_yaml_is_not_printed(tmp_path: Path, key: str) -> None:
    for text in (
        f"row: *{key}\n",
        f"row: !{key} x\n",
        f"{key}: 1\n{key}: 2\n",
        f"row: '{key}\nx: [",
    ):
        (tmp_path / "one.yaml").write_text(text)
        done = command("validate", tmp_path / "one.yaml")
        assert done.exit_code == 2
        assert key not in done.output


def test_a_long_text_is_masked_before_it_is_cut(tmp_path: Path) -> None:
    text = "x" * 40 + " " + KEYS[-1]
    assert KEYS[-1][:12] not in said(tmp_path, endpoint(timeout_s=text))


def test_a_key_in_the_place_of_its_files_name_is_not_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.llm.secrets import read_key

    monkeypatch.delenv("SOME_KEY", raising=False)
    monkeypatch.setenv("SOME_KEY_FILE", KEYS[0])
    with pytest.raises(HarnessError) as fault:
        read_key("SOME_KEY", "a judge")
    assert KEYS[0] not in str(fault.value)
    assert "SOME_KEY_FILE" in str(fault.value)


@pytest.mark.parametrize(
    "text",
    [
        "40 hex digits: 0123456789abcdef0123456789abcdef01234567",
        "sha256 " + "0123456789abcdef" * 4,
        "train 6aab68af58ac of Llama4ForConditionalGeneration, hf_hub_download, sk-learn, task-1234567",
        "Qwen/Qwen2.5-0.5B-Instruct-GPTQ-Int4 at http://127.0.0.1:8000/v1, see me@host",
        "/tmp/harness-crate-x1/volume/artefacts/judge/0123456789abcdef/annotations.json",
    ],
)
def test_what_is_no_key_stays(text: str) -> None:
    assert masked(text) == text


def test_a_layouts_faults_do_not_print_a_key(tmp_path: Path) -> None:
    write_row(tmp_path / "specs")
    table = {"tests": {"caption": KEYS[0], "source": "s", KEYS[0]: 1, "list": KEYS[0]}}
    (tmp_path / "specs" / "_tables.yaml").write_text(yaml.safe_dump({"tables": table}))
    done = command("validate", tmp_path / "specs")
    assert done.exit_code == 2
    assert KEYS[0] not in done.output


@pytest.mark.parametrize("key", KEYS)
def test_of_the_command_lines_own_faults_none_prints_a_key(key: str) -> None:
    for line in (
        [key], [f"--{key}"], ["run", "x", "--executor", key], ["run", "x", "--scale", key],
        ["run", "x", f"--{key}"], ["table", "--format", key], ["schema", key],
    ):  # fmt: skip
        done = command(*line)
        assert done.exit_code == 2
        assert key not in done.output
        assert "[key]" in done.output


@pytest.mark.parametrize("key", [k for k in KEYS if "." not in k])
def test_a_key_in_a_name_that_is_shown_is_refused(tmp_path: Path, key: str) -> None:
    hub = {"hub": {"id": f"me/{key}", "revision": "a" * 40}}
    part = evaluation(tmp_path / "specs", endpoint(model=key))
    for place, changes in (
        ("eval.judge.judge.model", {"eval": part}), ("model.hub.id", {"model": hub}),
        ("title", {"title": key}), ("varied", {"varied": {"data": key}}),
    ):  # fmt: skip
        write_row(tmp_path / "specs", **changes)
        done = command("validate", tmp_path / "specs" / "one.yaml")
        assert done.exit_code == 2
        assert key not in done.output
        assert place in done.output
        assert "looks like a key" in done.output
