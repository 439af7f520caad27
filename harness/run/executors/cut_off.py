"""Cuts a process off before it becomes a container: `python cut_off.py [--ends-with PID] [--no-network]
[--read-only PATH]... -- COMMAND...`, for runtimes that can do none of it themselves.

In namespaces of its own, which the kernel gives any user where user namespaces are allowed, the process
has no network but its loopback device, and each PATH is a mount that cannot be written to. With
`--ends-with` it is ended when its parent PID is gone. It then becomes COMMAND, under the same process
id. Stands alone: as a script it imports nothing of the harness.

Exit code 125, with a sentence on standard error: the kernel refuses.
"""

import ctypes
import fcntl
import itertools
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

REFUSED = 125
ENDS_WITH, NO_NETWORK, READ = "--ends-with", "--no-network", "--read-only"
NEW_USER, NEW_MOUNTS, NEW_NETWORK = 0x10000000, 0x00020000, 0x40000000
"""CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET of linux/sched.h."""
READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000
"""MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE of sys/mount.h."""
KEPT = {os.ST_NOSUID: 0x2, os.ST_NODEV: 0x4, os.ST_NOEXEC: 0x8, os.ST_NOATIME: 0x400}
KEPT |= {os.ST_NODIRATIME: 0x800, os.ST_RELATIME: 0x200000}
"""A mount's flags that a user namespace may not clear, as statvfs has them and as mount takes them."""
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 0x1
"""SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP of linux/sockios.h and net/if.h."""

_libc = ctypes.CDLL(None, use_errno=True)


def main(words: list[str]) -> NoReturn:
    end = words.index("--")
    options, command = words[:end], words[end + 1 :]
    pairs = list(itertools.pairwise(options))
    paths = [path for option, path in pairs if option == READ]
    for option, parent in pairs:
        if option == ENDS_WITH:
            _libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
            if os.getppid() != int(parent):
                sys.exit(REFUSED)
    try:
        if paths or NO_NETWORK in options:
            _unshare(NO_NETWORK in options)
        for path in paths:
            _make_read_only(path)
    except OSError as e:
        print(f"the kernel refuses to cut this process off: {e}", file=sys.stderr)
        sys.exit(REFUSED)
    os.execvp(command[0], command)


def prefix(read_only: Sequence[str] = (), has_network: bool = True) -> list[str]:
    """What stands before a command that is to end with this process, and to be cut off so."""
    options = [ENDS_WITH, str(os.getpid()), *([] if has_network else [NO_NETWORK])]
    options += [word for path in read_only for word in (READ, path)]
    return [sys.executable, "-I", "-S", __file__, *options, "--"]


def refusal() -> str:
    """Why the kernel would not cut a process off; empty where it does."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", __file__, NO_NETWORK, READ, "/proc/self", "--", "true"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return "" if done.returncode == 0 else done.stderr.strip()


def _unshare(without_network: bool) -> None:
    user, group = os.getuid(), os.getgid()
    _check(_libc.unshare(NEW_USER | NEW_MOUNTS | (NEW_NETWORK if without_network else 0)))
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")
    _mount(None, "/", RECURSIVE | PRIVATE)
    if without_network:
        _raise_loopback()


def _raise_loopback() -> None:
    """The processes of one training meet there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        request = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack("16sh", fcntl.ioctl(device, GET_FLAGS, request))[1]
        fcntl.ioctl(device, SET_FLAGS, struct.pack("16sh", b"lo", flags | UP))


def _make_read_only(path: str) -> None:
    _mount(path, path, BIND | RECURSIVE)
    mounted = os.statvfs(path).f_flag
    kept = sum(flag for bit, flag in KEPT.items() if mounted & bit)
    _mount(None, path, BIND | REMOUNT | READ_ONLY | kept)


def _mount(source: str | None, target: str, flags: int) -> None:
    origin = None if source is None else os.fsencode(source)
    _check(_libc.mount(origin, os.fsencode(target), None, ctypes.c_ulong(flags), None), target)


def _check(code: int, path: str | None = None) -> None:
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
