"""Given data by address: what is kept, what is refused and in which words."""

import errno
import hashlib
import io
import multiprocessing
import shutil
import socket
import ssl
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.artefact.keys import Files
from harness.artefact.store import Store
from harness.common import commands
from harness.errors import HarnessError, InputError, NotFetched
from harness.run.given import archive, bring, download
from harness.run.given.bring import NotBrought
from harness.run.given.download import Patience
from harness.spec.base import DataPath
from tests.run.given.file_server import FileServer, serving

CONTENT = bytes(range(256)) * 4000
"""A megabyte."""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Patience(silence=20, attempts=4, pause=0.01)
    monkeypatch.setattr(bring, "PACE", pace)
    monkeypatch.delenv(bring.MIRROR, raising=False)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as started:
        started.files["/data/a.json"] = CONTENT
        yield started


class Fetcher:
    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.store.prepare()
        self.files = Files(None, None, self.store.files_folder)
        self.output = io.StringIO()

    def __call__(self, *data: DataPath) -> list[Path]:
        console = Console(file=self.output, width=300)
        return bring.bring(data, self.store, self.files, console)

    def fault(self, *data: DataPath) -> str:
        with pytest.raises(NotBrought) as error:
            self(*data)
        assert list(self.store.files_folder.glob("*")) == []
        return error.value.message

    def left(self) -> list[str]:
        """What stands unfinished on the volume."""
        work = self.store.root / "work"
        return sorted(str(p.relative_to(work)) for p in work.rglob("*") if p.is_file())


@pytest.fixture
def fetch(tmp_path: Path) -> Fetcher:
    return Fetcher(tmp_path / "volume")


def given(*urls: str, content: bytes = CONTENT, digest: str = "", **more: Any) -> DataPath:
    return DataPath(url=urls, sha256=digest or sha256(content), **more)


def test_a_file_is_kept_by_its_digest_and_asked_for_once(
    server: FileServer, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = given(f"{server.url}/data/a.json")
    monkeypatch.setattr(commands, "_named", [Path("a volume")])
    with pytest.raises(NotFetched, match="harness fetch SPEC --volume 'a volume'"):
        fetch.files.locate(data)
    assert fetch.files.digest(data) == data.sha256
    fetch(data)
    path = fetch.files.locate(data)
    assert path == fetch.store.files_folder / str(data.sha256) / "a.json"
    assert path.read_bytes() == CONTENT
    assert fetch(data) == []
    assert server.requests == [("/data/a.json", None)]
    assert fetch.left() == []
    assert "download: 1000 of 1000 KiB" in fetch.output.getvalue()


def test_a_download_that_breaks_off_goes_on_where_it_was(
    server: FileServer, fetch: Fetcher
) -> None:
    server.breaks["/data/a.json"] = [100_000, 200_000]
    fetch(given(f"{server.url}/data/a.json"))
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-", "bytes=300000-"]
    assert "broke off after 100,000 of 1,024,000 bytes; going on" in fetch.output.getvalue()


def test_a_later_command_goes_on_with_what_an_earlier_one_left(
    server: FileServer, fetch: Fetcher
) -> None:
    data = given(f"{server.url}/data/a.json")
    server.breaks["/data/a.json"] = [4000, 0, 0, 0, 0]
    assert "broke off after 4,000 of 1,024,000 bytes (5 attempts)" in fetch.fault(data)
    fetch(data)
    assert server.requests[-1] == ("/data/a.json", "bytes=4000-")


def test_a_download_is_given_up_only_where_it_gets_no_further(
    server: FileServer, fetch: Fetcher
) -> None:
    server.breaks["/data/a.json"] = [50_000] * 10
    fetch(given(f"{server.url}/data/a.json"))
    assert len(server.requests) == 11


def test_a_file_that_changed_meanwhile_is_begun_anew(server: FileServer, fetch: Fetcher) -> None:
    data = given(f"{server.url}/data/a.json")
    server.files["/data/a.json"] = b"x" * len(CONTENT)
    server.breaks["/data/a.json"] = [1000, 0, 0, 0, 0]
    fetch.fault(data)
    server.files["/data/a.json"], server.etag = CONTENT, '"two"'
    [path] = fetch(data)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_beginning_of_another_file_is_found_out_and_dropped(
    server: FileServer, fetch: Fetcher, knows_ranges: bool
) -> None:
    server.knows_ranges = knows_ranges
    data = given(f"{server.url}/data/a.json")
    part = fetch.store.work_folder("file", str(data.sha256)) / "part"
    part.parent.mkdir()
    part.write_bytes(b"y" * 1000)
    [path] = fetch(data)
    assert path.read_bytes() == CONTENT


def test_a_whole_part_is_not_asked_for_again(server: FileServer, fetch: Fetcher) -> None:
    data = given(f"{server.url}/data/a.json")
    part = fetch.store.work_folder("file", str(data.sha256)) / "part"
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    fetch(data)
    assert server.requests == []


def test_a_part_that_is_too_long_is_begun_anew(server: FileServer, fetch: Fetcher) -> None:
    data = given(f"{server.url}/data/a.json")
    part = fetch.store.work_folder("file", str(data.sha256)) / "part"
    part.parent.mkdir()
    part.write_bytes(CONTENT + b"more")
    [path] = fetch(data)
    assert path.read_bytes() == CONTENT


def test_another_file_is_told_with_both_digests_and_not_kept(
    server: FileServer, fetch: Fetcher
) -> None:
    other = sha256(b"other")
    message = fetch.fault(given(f"{server.url}/data/a.json", digest=other))
    assert f"its sha256 is {sha256(CONTENT)}, the spec says {other}" in message
    assert fetch.left() == []


def test_a_login_page_is_called_one_and_where_it_came_from_is_said(
    server: FileServer, fetch: Fetcher
) -> None:
    server.redirects["/data/b.json"] = f"{server.url}/login?next=secret"
    server.files["/login?next=secret"] = b"\n<!DOCTYPE html><html>Log in"
    message = fetch.fault(given(f"{server.url}/data/b.json"))
    assert "answers with a web page in the file's place" in message
    assert f"(redirected to {server.url}/login)" in message
    assert "secret" not in message


def test_a_pointer_to_large_files_is_called_one(server: FileServer, fetch: Fetcher) -> None:
    server.files["/data/a.json"] = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"
    assert "a pointer of Git LFS" in fetch.fault(given(f"{server.url}/data/a.json"))


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "has no such file (404)"), (403, "refuses (403): it may want a login"),
     (400, "answers 400")],
)  # fmt: skip
def test_what_a_server_says_for_good_is_not_asked_again(
    server: FileServer, fetch: Fetcher, status: int, message: str
) -> None:
    server.statuses["/data/a.json"] = [status] * 9
    data = given(f"{server.url}/data/a.json")
    assert message in fetch.fault(data)
    assert len(server.requests) == 1
    with pytest.raises(NotBrought) as error:
        fetch(data)
    assert error.value.exit_code == 2


def test_a_server_in_trouble_is_asked_again(server: FileServer, fetch: Fetcher) -> None:
    server.statuses["/data/a.json"] = [503, 429]
    fetch(given(f"{server.url}/data/a.json"))
    assert len(server.requests) == 3
    server.statuses["/data/b.json"] = [500] * 9
    with pytest.raises(NotBrought, match=r"answers 500 \(4 attempts\)") as error:
        fetch(given(f"{server.url}/data/b.json", content=b"b"))
    assert error.value.exit_code == 1
    assert "Run the same command again" in error.value.hint


def test_a_server_that_falls_silent_is_left(
    server: FileServer, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bring, "PACE", Patience(silence=0.3, attempts=2, pause=0.01))
    server.pauses["/data/a.json"] = 3
    assert "sent nothing for 0.3 s" in fetch.fault(given(f"{server.url}/data/a.json"))


def test_a_server_that_trickles_is_left(
    server: FileServer, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bring, "PACE", Patience(attempts=2, pause=0.01, window=0.3))
    server.pauses["/data/a.json"] = 0.02
    message = fetch.fault(given(f"{server.url}/data/a.json"))
    assert "sends less than 1,024 bytes a second" in message


def test_a_certificate_that_is_refused_is_no_reason_to_ask_again() -> None:
    error = ssl.SSLCertVerificationError(1, "CERTIFICATE_VERIFY_FAILED")
    error.verify_message = "self-signed certificate"
    fault = download._of_connecting(error, Patience())
    assert isinstance(fault, download.Failed)
    assert str(fault) == ("cannot be trusted: its certificate is refused (self-signed certificate)")


def test_a_disk_that_fills_up_keeps_what_came_and_the_next_command_goes_on(
    server: FileServer, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = given(f"{server.url}/data/a.json")
    progress = download._progress

    def full(have: int, total: int | None) -> dict[str, Any]:
        if have > 300_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return progress(have, total)

    monkeypatch.setattr(download, "_progress", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(data)
    assert list(fetch.store.files_folder.glob("*")) == []
    monkeypatch.setattr(download, "_progress", progress)
    fetch(data)
    assert int(str(server.requests[-1][1]).removeprefix("bytes=").removesuffix("-")) > 300_000


def test_a_server_that_is_not_there_is_said_to_be_so(fetch: Fetcher) -> None:
    message = fetch.fault(given("http://127.0.0.1:9/a.json"))
    assert message == (
        "http://127.0.0.1:9/a.json cannot be had: the address cannot be reached: nothing listens there "
        "(connection refused) (2 attempts)"
    )
    places = "http://127.0.0.1:9/a", "http://127.0.0.1:9/ab"
    message = fetch.fault(given(*places, member="a.json"))
    assert message.startswith(f"{places[0]} (a.json in it) cannot be had: the address cannot be")
    assert f"; {places[1]} cannot be reached" in message


@pytest.mark.parametrize(
    ("reason", "message"),
    [(socket.gaierror(-2, "Name or service not known"), "is not known here (DNS)"),
     (TimeoutError("timed out"), "no answer in 30 s"),
     (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version"), "does not speak TLS"),
     (OSError(errno.ENETUNREACH, "Network is unreachable"), "Network is unreachable"),
     (OSError("Tunnel connection failed: 403 Forbidden"), "Tunnel connection failed: 403")],
)  # fmt: skip
def test_why_a_server_cannot_be_reached_is_said(reason: Exception, message: str) -> None:
    fault = download._of_connecting(reason, Patience())
    assert str(fault).startswith("cannot be reached: ")
    assert message in str(fault)


def test_a_name_that_is_not_known_and_a_server_without_tls_are_told_apart(
    server: FileServer, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert "(DNS)" in fetch.fault(given("https://no-such-host.invalid/a.json"))
    address = f"https://127.0.0.1:{server.server_address[1]}/a.json"
    assert "does not speak TLS" in fetch.fault(given(address))


def test_where_a_wrong_answer_came_from_is_said_whatever_it_is(
    server: FileServer, fetch: Fetcher, tmp_path: Path
) -> None:
    where = f"(redirected to {server.url}/there)"
    server.redirects["/data/b"] = f"{server.url}/there"
    data = given(f"{server.url}/data/b", content=b"b")
    assert f"has no such file (404) {where}" in fetch.fault(data)
    server.statuses["/there"] = [503] * 4
    assert f"answers 503 {where}" in fetch.fault(data)
    server.files["/there"] = b"no archive"
    archived = given(f"{server.url}/data/b", content=b"b", member="x")
    assert f"neither a zip nor a tar archive {where}" in fetch.fault(archived)


def test_a_wrong_size_in_the_spec_is_said_and_helps_with_a_wrong_file(
    server: FileServer, fetch: Fetcher
) -> None:
    fetch(given(f"{server.url}/data/a.json", bytes=7))
    message = "it has 1,024,000 bytes, and its spec says 7: correct `bytes`"
    assert message in fetch.output.getvalue()
    server.files["/cut"] = b"cut"
    with pytest.raises(NotBrought, match="; it has 3 bytes, the spec says 1,000"):
        fetch(given(f"{server.url}/cut", content=b"other", bytes=1000))


def test_nothing_empty_is_left_where_nothing_came(
    server: FileServer, fetch: Fetcher, tmp_path: Path
) -> None:
    fetch.fault(given("http://127.0.0.1:9/a.json"))
    fetch.fault(given("http://127.0.0.1:9/a.zip", member="x"))
    fetch.fault(given(f"{server.url}/gone.zip", member="x"))
    fetch.fault(given(f"{server.url}/data/a.json", member="x"))
    assert list((fetch.store.root / "work").iterdir()) == []


def test_the_next_address_is_tried_and_all_are_told_where_none_has_it(
    server: FileServer, fetch: Fetcher
) -> None:
    fetch(given(f"{server.url}/nowhere", f"{server.url}/data/a.json"))
    assert "has no such file (404); the next address is tried" in fetch.output.getvalue()
    with pytest.raises(NotBrought) as error:
        fetch(given(f"{server.url}/no1", f"{server.url}/no2", content=b"b"))
    assert "/no1 cannot be had: the address has no such file (404); " in error.value.message
    assert "/no2 has no such file (404)" in error.value.message


@pytest.mark.parametrize(
    "target", ["ftp://127.0.0.1/x", "file:///etc/hostname", "http://example.com/x",
               "https://user:word@127.0.0.1/x", "//", "http://127.0.0.1/../x"],
)  # fmt: skip
def test_nobody_is_redirected_to_where_a_spec_may_not_send(
    server: FileServer, fetch: Fetcher, target: str
) -> None:
    server.redirects["/data/a.json"] = target
    message = fetch.fault(given(f"{server.url}/data/a.json"))
    assert "redirects to where nothing is fetched from" in message
    assert "word" not in message


def test_from_elsewhere_nobody_is_redirected_to_this_machine() -> None:
    import urllib.request
    from email.message import Message

    request = urllib.request.Request("https://example.com/a")
    with pytest.raises(download.Failed, match="redirects to where nothing is fetched from"):
        download._Redirects().redirect_request(
            request, None, 302, "", Message(), "https://127.0.0.1/a"
        )


def test_what_is_much_longer_than_the_spec_says_is_left(
    server: FileServer, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "BEYOND", 10)
    message = fetch.fault(given(f"{server.url}/data/a.json", content=b"abc", bytes=3))
    assert "answers with more than the 3 bytes that the spec says" in message
    assert fetch.left() == []


def test_a_disk_without_room_is_said_before_anything_is_written(
    server: FileServer, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 1000))  # type: ignore[attr-defined]
    with pytest.raises(HarnessError, match=r"no room for the 1000\.0 KiB of a download"):
        fetch(given(f"{server.url}/data/a.json"))
    assert [name for name in fetch.left() if name.endswith("part")] == []


def test_a_file_under_two_names_is_fetched_once(server: FileServer, fetch: Fetcher) -> None:
    first = given(f"{server.url}/data/a.json")
    second = given(f"{server.url}/data/other.jsonl")
    fetch(first, second)
    assert len(server.requests) == 1
    assert fetch.files.locate(second).name == "other.jsonl"
    assert fetch.files.locate(second).read_bytes() == CONTENT


def _fetch_in_a_process(root: str, url: str) -> None:
    Fetcher(Path(root))(given(url))


def test_two_processes_that_want_one_file_fetch_it_once(server: FileServer, fetch: Fetcher) -> None:
    server.files["/a"] = CONTENT
    processes = [
        multiprocessing.get_context("fork").Process(
            target=_fetch_in_a_process, args=(str(fetch.store.root), f"{server.url}/a")
        )
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(server.requests) == 1


def test_a_file_that_was_changed_on_the_volume_is_refused(
    server: FileServer, fetch: Fetcher
) -> None:
    data = given(f"{server.url}/data/a.json")
    [path] = fetch(data)
    path.write_bytes(b"changed")
    with pytest.raises(InputError, match="is not the file that the spec means") as error:
        Files(None, None, fetch.store.files_folder).digest(data)
    assert f"Remove {path.parent}, and fetch it again" in error.value.hint


def test_a_mirror_is_tried_first_by_digest_and_then_by_path(
    server: FileServer, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(bring.MIRROR, f"{server.url}/mirror/")
    first, second = b"first", b"second"
    server.files[f"/mirror/{sha256(first)}/a.json"] = first
    server.files["/mirror/example.com/x/b.json"] = second
    fetch(
        given("https://example.com/x/a.json", content=first),
        given("https://example.com/x/b.json", content=second),
    )
    assert [path for path, _ in server.requests] == [
        f"/mirror/{sha256(first)}/a.json",
        f"/mirror/{sha256(second)}/b.json",
        "/mirror/example.com/x/b.json",
    ]


def test_a_folder_made_by_wget_is_a_mirror_with_ports_and_queries_in_its_names(
    fetch: Fetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(bring.MIRROR, str(tmp_path))
    files = {
        "example.com:8443/x/a b.json": b"first", "example.com/y/b.json?part=1": b"second",
        "example.org/c.json": b"third",
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    fetch(
        given("https://example.com:8443/x/a%20b.json", content=b"first"),
        given("https://example.com/y/b.json?part=1", content=b"second"),
        given("https://example.org:8443/c.json", content=b"third"),
    )


def test_a_mirror_by_plain_http_is_asked_and_may_redirect_within_its_network_not_to_this_machine(
    fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib.request
    from email.message import Message

    monkeypatch.setenv(bring.MIRROR, "http://mirror.intranet/files/")
    assert bring.mirror_address() == "http://mirror.intranet/files"
    request = urllib.request.Request("http://mirror.intranet/files/a")
    handler = download._Redirects()
    there = "http://store.intranet/a"
    answer = handler.redirect_request(request, io.BytesIO(), 302, "", Message(), there)
    assert answer is not None
    assert answer.full_url == there
    with pytest.raises(download.Failed, match=r"nothing is fetched from: http://127\.0\.0\.1/a"):
        handler.redirect_request(request, io.BytesIO(), 302, "", Message(), "http://127.0.0.1/a")


def test_the_files_of_another_volume_are_a_mirror(
    server: FileServer, fetch: Fetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = given(f"{server.url}/data/a.json")
    Fetcher(tmp_path / "other")(data)
    server.requests.clear()
    monkeypatch.setenv(bring.MIRROR, str(tmp_path / "other" / "files"))
    fetch(data)
    assert server.requests == []


def test_where_a_mirror_lacks_the_file_the_address_is_asked_and_both_are_told(
    server: FileServer, fetch: Fetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(bring.MIRROR, str(tmp_path))
    fetch(given(f"{server.url}/data/a.json"))
    with pytest.raises(NotBrought) as error:
        fetch(given(f"{server.url}/gone", content=b"b"))
    assert f"the mirror file://{tmp_path}/{sha256(b'b')}/gone has no such file" in str(error.value)
    assert "; the address has no such file (404)" in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [("https://me:word@host/x", "a user name or password"), ("ftp://host/x", "begins with https"),
     ("/nowhere/at/all", "names no folder that is there")],
)  # fmt: skip
def test_a_mirror_that_cannot_be_one_is_refused(
    fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    monkeypatch.setenv(bring.MIRROR, value)
    with pytest.raises(InputError, match=message) as error:
        fetch(given("https://example.com/a"))
    assert "word@" not in str(error.value)


# Archives and folders.


def make_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)


def make_tar(path: Path, files: dict[str, bytes], link: str = "") -> None:
    with tarfile.open(path, "w:gz") as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
            packed.addfile(info)


FILES = {"set/train.json": b"train", "set/deep/test.json": b"test", "readme": b"me"}


@pytest.mark.parametrize("pack", [make_zip, make_tar])
def test_members_of_one_archive_are_taken_out_of_one_download(
    server: FileServer, fetch: Fetcher, tmp_path: Path, pack: Any
) -> None:
    pack(tmp_path / "packed", FILES)
    server.files["/packed"] = (tmp_path / "packed").read_bytes()
    url = f"{server.url}/packed"
    train = given(url, content=b"train", member="set/train.json")
    test = given(url, content=b"test", member="./set/deep/test.json")
    folder = tmp_path / "unpacked"
    (folder / "deep").mkdir(parents=True)
    (folder / "train.json").write_bytes(b"train")
    (folder / "deep" / "test.json").write_bytes(b"test")
    whole = given(url, digest=Files(None, None).digest_path(folder), member="set")
    fetch(train, test, whole)
    assert fetch.files.locate(train).read_bytes() == b"train"
    assert fetch.files.locate(test).name == "test.json"
    assert (fetch.files.locate(whole) / "deep" / "test.json").read_bytes() == b"test"
    assert fetch.files.digest(whole) == Files(None, None).digest(DataPath(path=str(folder)))
    assert len(server.requests) == 1
    assert fetch.left() == []


@pytest.mark.parametrize("pack", [make_zip, make_tar])
def test_an_archive_without_the_member_is_told_with_the_nearest_names(
    fetch: Fetcher, tmp_path: Path, pack: Any
) -> None:
    pack(tmp_path / "packed", FILES)
    data = given(f"file://{tmp_path}/packed", content=b"train", member="set/trian.json")
    assert "has no set/trian.json in it; near: set/train.json" in fetch.fault(data)


def test_an_archive_with_a_wrong_member_is_kept_and_the_right_one_taken_without_another_download(
    server: FileServer, fetch: Fetcher, tmp_path: Path
) -> None:
    make_zip(tmp_path / "packed", FILES)
    server.files["/packed"] = (tmp_path / "packed").read_bytes()
    url = f"{server.url}/packed"
    for wrong in (
        given(url, content=b"train", member="set/trian.json"),
        given(url, content=b"other", member="set/train.json"),
    ):
        with pytest.raises(HarnessError) as caught:
            fetch(wrong)
        assert "the archive is kept in" in caught.value.message
        assert "Correct `member` or sha256" in caught.value.hint
    assert len(server.requests) == 1
    right = given(url, content=b"train", member="set/train.json")
    fetch(right)
    assert fetch.files.locate(right).read_bytes() == b"train"
    assert len(server.requests) == 1
    assert fetch.left() == []


@pytest.mark.parametrize(
    ("member", "near"),
    [("data/train.json", "near: repo-1a2b/data/train.json"), ("dat", "near: repo-1a2b/data"),
     ("DATA/Trian.json", "near: repo-1a2b/data/train.json"),
     ("unlike", "at its top are repo-1a2b")],
)  # fmt: skip
def test_near_names_are_found_below_an_archives_own_folder_and_folders_are_names_too(
    fetch: Fetcher, tmp_path: Path, member: str, near: str
) -> None:
    files = {f"repo-1a2b/aa/f{i:03}.txt": b"" for i in range(50)}
    make_zip(tmp_path / "packed", {**files, "repo-1a2b/data/train.json": b"train"})
    data = given(f"file://{tmp_path}/packed", content=b"train", member=member)
    assert near in fetch.fault(data)


def test_an_archive_that_came_whole_is_kept_where_the_disk_has_no_room_to_unpack_it(
    server: FileServer, fetch: Fetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_zip(tmp_path / "packed", {"x": bytes(10**6)})
    server.files["/packed"] = (tmp_path / "packed").read_bytes()
    data = given(f"{server.url}/packed", content=bytes(10**6), member="x")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 10**5))  # type: ignore[attr-defined]
        with pytest.raises(
            HarnessError, match=r"no room for the 976\.6 KiB of what its archive"
        ) as e:
            fetch(data)
    assert "harness gc" in e.value.hint
    fetch(data)
    assert len(server.requests) == 1
    assert list((fetch.store.root / "work").iterdir()) == []


def test_an_empty_folder_is_said_to_be_one(fetch: Fetcher, tmp_path: Path) -> None:
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    for member in (None, ".", "deeper"):
        data = given(f"file://{tmp_path}/empty", content=b"", member=member)
        assert "is a folder without a file in it" in fetch.fault(data)


def test_a_members_other_content_is_told_with_both_digests(fetch: Fetcher, tmp_path: Path) -> None:
    make_zip(tmp_path / "packed", FILES)
    data = given(f"file://{tmp_path}/packed", content=b"else", member="readme")
    assert f"its sha256 is {sha256(b'me')}, the spec says {sha256(b'else')}" in fetch.fault(data)


@pytest.mark.parametrize("pack", [make_zip, make_tar])
def test_nothing_is_written_outside_of_where_a_folder_belongs(
    fetch: Fetcher, tmp_path: Path, pack: Any
) -> None:
    pack(tmp_path / "packed", {"set/../../../../evil": b"evil", "set/a": b"a"})
    data = given(f"file://{tmp_path}/packed", content=b"a", member="set")
    assert "which would be written elsewhere" in fetch.fault(data)
    assert list(tmp_path.rglob("evil")) == []


def test_a_link_in_an_archive_is_not_followed(fetch: Fetcher, tmp_path: Path) -> None:
    make_tar(tmp_path / "packed", {"set/a": b"a"}, link="set/b")
    for member in ("set", "set/b"):
        data = given(f"file://{tmp_path}/packed", content=b"a", member=member)
        assert "set/b is no file but a link" in fetch.fault(data)
    info = zipfile.ZipInfo("b")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "zip", "w") as packed:
        packed.writestr(info, "/etc/hostname")
    data = given(f"file://{tmp_path}/zip", content=b"a", member="b")
    assert "b is no file but a link" in fetch.fault(data)


@pytest.mark.parametrize("pack", [make_zip, make_tar])
def test_an_archive_that_would_fill_the_disk_is_refused(
    fetch: Fetcher, tmp_path: Path, pack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "ALWAYS", 1000)
    bomb = bytes(10**6)
    pack(tmp_path / "packed", {"bomb": bomb, "after": b"a"})
    assert (tmp_path / "packed").stat().st_size * archive.MOST_GROWTH < len(bomb)
    data = given(f"file://{tmp_path}/packed", content=bomb, member="bomb")
    assert "far too much for its size" in fetch.fault(data)


def test_what_is_no_archive_or_a_damaged_one_is_said_to_be_so(
    server: FileServer, fetch: Fetcher, tmp_path: Path
) -> None:
    data = given(f"{server.url}/data/a.json", content=b"a", member="x")
    assert "is neither a zip nor a tar archive" in fetch.fault(data)
    server.files["/page"] = b"<html>no</html>"
    data = given(f"{server.url}/page", content=b"a", member="x")
    assert "answers with a web page" in fetch.fault(data)
    make_zip(tmp_path / "packed", {"x": b"content" * 100})
    damaged = bytearray((tmp_path / "packed").read_bytes())
    damaged[35:45] = bytes(10)
    server.files["/damaged"] = bytes(damaged)
    data = given(f"{server.url}/damaged", content=b"content" * 100, member="x")
    assert "has an archive that cannot be read" in fetch.fault(data)


def test_a_files_address_is_of_a_file_or_of_a_folder_with_a_member(
    fetch: Fetcher, tmp_path: Path
) -> None:
    folder = tmp_path / "on disk"
    folder.mkdir()
    (folder / "a b.json").write_bytes(b"ab")
    fetch(given(f"file://{folder}/a%20b.json", content=b"ab"))
    data = given(f"file://{folder}", content=b"ab", member="a b.json")
    fetch(data)
    assert fetch.files.locate(data).read_bytes() == b"ab"
    absent = given(f"file://{folder}", content=b"c", member="a c.json")
    with pytest.raises(NotBrought, match=r"near: a b\.json"):
        fetch(absent)


def test_a_link_in_a_folder_that_leads_out_of_it_is_not_followed(
    fetch: Fetcher, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "secret")
    data = given(f"file://{tmp_path}/folder", content=b"secret", member="link")
    assert "holds a link that leads out of it" in fetch.fault(data)
