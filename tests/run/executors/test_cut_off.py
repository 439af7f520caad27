"""A process that is cut off from the network and cannot write where it may not: by the real kernel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.run.executors import cut_off

REACH = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
print("loopback", end=" ")
with open("/proc/net/dev") as devices:
    print(*sorted(line.split(":")[0].strip() for line in devices if ":" in line))
"""


@pytest.fixture(autouse=True)
def allowed() -> None:
    if why := cut_off.refusal():
        pytest.skip(why)


def run(prefix: list[str], *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*prefix, *command], capture_output=True, text=True)


def test_without_a_network_there_is_the_loopback_device_alone_and_it_works() -> None:
    done = run(cut_off.prefix(has_network=False), sys.executable, "-c", REACH)
    assert done.stdout.split() == ["loopback", "lo"], done.stderr


def test_a_read_only_folder_can_be_read_and_not_written_and_others_can(tmp_path: Path) -> None:
    for name in ("input", "work"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("before")
    prefix = cut_off.prefix([str(tmp_path / "input")])
    done = run(prefix, "cat", str(tmp_path / "input" / "file"))
    assert done.stdout == "before"
    for name, code in (("input", 1), ("work", 0)):
        done = run(prefix, "cp", "/dev/null", str(tmp_path / name / "file"))
        assert done.returncode == code, done.stderr
    assert (tmp_path / "input" / "file").read_text() == "before"
    assert (tmp_path / "work" / "file").read_text() == ""
    (tmp_path / "input" / "file").write_text("the mount was this process's alone")


def test_the_command_has_the_callers_user_and_the_process_that_was_started() -> None:
    process = subprocess.Popen(
        [*cut_off.prefix(has_network=False), "sh", "-c", "echo $$ $(id -u) $(id -g)"],
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate()
    assert output.split() == [str(process.pid), str(os.getuid()), str(os.getgid())]


def test_it_ends_with_the_process_that_started_it() -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, time; from harness.run.executors import cut_off\n"
            "child = subprocess.Popen([*cut_off.prefix(), 'sleep', '60'])\n"
            "time.sleep(0.5); print(child.pid, flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = Path("/proc", parent.stdout.readline().strip())
    assert child.exists()
    parent.kill()
    parent.communicate()
    for _ in range(100):
        if not child.exists() or "zombie" in (child / "status").read_text():
            return
        subprocess.run(["sleep", "0.05"], check=True)
    pytest.fail("it lives on")


def test_a_kernel_that_refuses_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = run(cut_off.prefix([str(tmp_path / "absent")]), "true")
    assert done.returncode == cut_off.REFUSED
    assert done.stderr.startswith("the kernel refuses to cut this process off: ")
    assert len(done.stderr.splitlines()) == 1
