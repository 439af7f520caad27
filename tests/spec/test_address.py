"""Which addresses a spec may name, and what they are called."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from harness.artefact.keys import iter_data
from harness.row.load import load_rows
from harness.spec.address import check_address, file_name, shown
from harness.spec.base import Data, DataPath, SourceText
from tests.helpers import write_row

DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://example.com/a", "begins with https://"),
        ("ftp://example.com/a", "begins with https://"),
        ("data.json", "begins with https://"),
        ("https:///a", "begins with https://"),
        ("https://me:word@example.com/a", "user name or password"),
        ("https://me@example.com/a", "user name or password"),
        ("https://example.com/a?token=abc", "key or signature"),
        ("https://example.com/a?x=1&X-Amz-Signature=abc", "key or signature"),
        ("https://example.com/a?authorization=abc", "key or signature"),
        ("https://example.com/a?apikey=abc", "key or signature"),
        ("https://example.com/a?x=hf_abcdefghijklmnop", "key or signature"),
        ("https://example.com/a#b", "before its #"),
        ("https://example.com/a b", "no blanks"),
        ("https://example.com/a\nb", "no blanks"),
        ("https://example.com:port/a", "not an address"),
        ("https://example.com/\u00e4", "no letters beyond ASCII"),
        ("https://example.com/a/%2e%2e/../b", r"holds no \.\."),
        ("file://host/a", "a file's address looks like"),
    ],
)
def test_an_address_that_is_refused_says_why(address: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_address(address)


@pytest.mark.parametrize(
    "address",
    ["https://example.com/a.json", "https://example.com/a?download=1", "http://127.0.0.1:80/a",
     "https://example.com/a?author=me&keyword=x&tokenizer=y",
     "http://localhost/a", "http://[::1]/a", "file:///folder/a%20b"],
)  # fmt: skip
def test_an_address_that_is_allowed_stays_as_it_is(address: str) -> None:
    assert check_address(address) == address


def test_a_files_address_may_be_relative_to_the_spec_that_names_it(tmp_path: Path) -> None:
    text = SourceText.at("file:../my data/a.zip", tmp_path / "specs")
    assert check_address(text) == f"file://{tmp_path}/my%20data/a.zip"


@pytest.mark.parametrize("several", [False, True])
def test_a_single_address_in_a_spec_is_relative_to_it_as_one_of_several_is(
    tmp_path: Path, several: bool
) -> None:
    url = ["file:../srv/a.json"] if several else "file:../srv/a.json"
    spec = write_row(tmp_path / "specs", gen=None, data={"url": url, "sha256": DIGEST})
    [data] = [d for loaded in load_rows([spec]) for d in iter_data(loaded.row) if d.url]
    assert data.url == (f"file://{tmp_path}/srv/a.json",)
    assert DataPath.model_validate({"url": data.url, "sha256": DIGEST}).url == data.url


@pytest.mark.parametrize("url", [7, [7]])
def test_an_address_that_is_no_text_is_refused(url: object) -> None:
    with pytest.raises(ValidationError, match=r"valid (string|tuple)"):
        TypeAdapter(Data).validate_python({"url": url, "sha256": DIGEST})


def test_an_address_is_shown_without_its_query_and_its_files_name_is_safe() -> None:
    assert shown("https://example.com/a?b=c") == "https://example.com/a"
    assert file_name("https://example.com/x/a%20b%2F..%2Fc.json?d") == "c.json"
    assert file_name("https://example.com/..") == "file"
    assert file_name("https://example.com") == "file"
    assert file_name("https://example.com/.hidden") == "hidden"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"url": [], "sha256": DIGEST}, "a list of no addresses"),
        ({"path": "a", "url": []}, "a list of no addresses"),
        ({"url": "https://a/b"}, "needs the sha256 of the file that is meant"),
        ({}, "a path is wanted, an address"),
        ({"path": "data:"}, "a path is wanted, an address"),
        ({"path": "a", "member": "b"}, "member is of what an address brings"),
        ({"url": "https://a/b", "sha256": DIGEST, "member": "../b"}, "a path within the archive"),
        ({"url": "https://a/b", "sha256": DIGEST, "member": "/b"}, "a path within the archive"),
        ({"url": ["https://a/b", "http://a/b"], "sha256": DIGEST}, "begins with https"),
    ],
)
def test_given_data_that_could_not_be_found_is_refused(
    data: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Data).validate_python(data)


def test_how_a_file_is_brought_is_in_no_dump_of_it() -> None:
    on_disk = DataPath(path="data:a", sha256=DIGEST)
    addressed = DataPath(path="data:a", sha256=DIGEST, url=("https://a/b",), member="c", bytes=1)
    assert addressed.model_dump() == on_disk.model_dump()
