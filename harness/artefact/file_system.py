"""The file system that a folder is on, and whether its locks hold between machines."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MOUNTS = Path("/proc/self/mountinfo")

LockKind = Literal["flock", "lease"]

OF_ONE_MACHINE = frozenset(
    {
        *("apfs", "bcachefs", "btrfs", "devtmpfs", "ecryptfs", "exfat", "ext2", "ext3", "ext4"),
        *("f2fs", "fuseblk", "hfs", "hfsplus", "jfs", "msdos", "nilfs2", "ntfs", "ntfs3"),
        *("overlay", "ramfs", "reiserfs", "rootfs", "tmpfs", "udf", "ufs", "vfat", "xfs", "zfs"),
    }
)
"""Types of file systems that no second machine mounts at the same time: there flock reaches all."""
CLUSTER_WIDE = frozenset({"ceph", "gfs2", "ocfs2"})
"""Network file systems whose flock is one lock for all clients."""
NFS_LOCAL_LOCKS = frozenset({"nolock", "local_lock=all", "local_lock=flock"})
"""Mount options with which NFS keeps an flock to the one machine (nfs(5))."""


@dataclass(frozen=True)
class FileSystem:
    """One that is mounted."""

    type: str
    """As the kernel names it: ext4, nfs4, lustre, fuse.sshfs; empty where it does not say."""
    source: str = ""
    options: frozenset[str] = frozenset()

    @property
    def is_shared(self) -> bool:
        """Whether other machines may see it too."""
        return bool(self.type) and self.type not in OF_ONE_MACHINE

    def lock_kind(self) -> tuple[LockKind, str]:
        """The kind of lock that holds between all machines that see it, and why, in words.

        What is not known to hold counts as not holding: a lease is slower and is right everywhere.
        """
        alone = sorted(NFS_LOCAL_LOCKS & self.options)
        match self.type:
            case "":
                return "flock", "the system does not say what the file system is"
            case kind if kind in OF_ONE_MACHINE:
                return "flock", f"{kind} is of this machine alone"
            case kind if kind in CLUSTER_WIDE:
                return "flock", f"{kind} has one flock for all machines"
            case "nfs4" if not alone:
                return "flock", "on NFS 4 the server keeps flock for all machines"
            case "nfs4":
                return "lease", f"NFS 4 is mounted with {alone[0]}, so flock ends at this machine"
            case "nfs":
                return (
                    "lease",
                    "NFS 3 keeps a crashed machine's flock until that is back, if at all",
                )
            case "lustre" if "flock" in self.options:
                return "flock", "Lustre is mounted with flock"
            case "lustre":
                return "lease", "Lustre is mounted without flock, so none reaches another machine"
            case kind:
                return "lease", f"flock of {kind} is not known to reach other machines"

    def __str__(self) -> str:
        return (
            f"{self.type or 'unknown'} ({self.source})" if self.source else self.type or "unknown"
        )


def file_system_of(folder: Path, mounts: Path = MOUNTS) -> FileSystem:
    """The one that holds a folder, or will hold it once it is made (proc(5), mountinfo)."""
    place = folder.resolve()
    holder, depth = FileSystem(""), -1
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return holder
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(rest) < 3:
            continue
        point = Path(_unescaped(fields[4]))
        # The last of several that are mounted on one another is what is seen.
        if place.is_relative_to(point) and len(point.parts) >= depth:
            options = frozenset({*fields[5].split(","), *rest[2].split(",")})
            holder = FileSystem(rest[0], _unescaped(rest[1]), options)
            depth = len(point.parts)
    return holder


def _unescaped(text: str) -> str:
    """mountinfo has spaces, tabs and backslashes as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
