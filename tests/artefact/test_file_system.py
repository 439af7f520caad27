"""The file system of a folder, read from a table of mounts, and whether flock holds there."""

from pathlib import Path

import pytest

from harness.artefact.file_system import FileSystem, file_system_of

TABLE = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:44 / /home rw,relatime shared:7 - nfs4 server:/home rw,vers=4.2,local_lock=none
31 27 0:45 / /home/big\040data rw - lustre 10.0.0.1@tcp:/big rw,flock,lazystatfs
32 27 0:46 / /scratch rw - tmpfs tmpfs rw
33 27 0:47 / /scratch rw - beegfs beegfs_nodev rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(TABLE)
    return path


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", "ext4"),
        ("/homes/me", "ext4"),
        ("/home/me/runs", "nfs4"),
        ("/home/big data/not/there/yet", "lustre"),
        ("/scratch/runs", "beegfs"),
    ],
)
def test_the_innermost_and_last_mount_holds_a_folder(mounts: Path, folder: str, kind: str) -> None:
    assert file_system_of(Path(folder), mounts).type == kind


def test_a_link_is_on_the_file_system_where_it_leads(tmp_path: Path, mounts: Path) -> None:
    (tmp_path / "runs").symlink_to("/home/me/runs")
    found = file_system_of(tmp_path / "runs", mounts)
    assert (found.type, found.source) == ("nfs4", "server:/home")


def test_where_there_is_no_table_nothing_is_known_of_the_file_system(tmp_path: Path) -> None:
    found = file_system_of(tmp_path, tmp_path / "none")
    assert str(found) == "unknown"
    assert not found.is_shared


@pytest.mark.parametrize(
    ("kind", "options", "locks"),
    [
        ("ext4", "", "flock"),
        ("tmpfs", "", "flock"),
        ("nfs4", "local_lock=none", "flock"),
        ("nfs4", "local_lock=flock", "lease"),
        ("nfs4", "local_lock=all", "lease"),
        ("nfs4", "local_lock=posix", "flock"),
        ("nfs", "local_lock=none", "lease"),
        ("nfs", "nolock", "lease"),
        ("lustre", "flock", "flock"),
        ("lustre", "localflock", "lease"),
        ("lustre", "lazystatfs", "lease"),
        ("ceph", "", "flock"),
        ("beegfs", "", "lease"),
        ("fuse.sshfs", "", "lease"),
        ("gpfs", "", "lease"),
        ("never-heard-of", "", "lease"),
    ],
)
def test_flock_is_taken_where_it_is_known_to_reach_every_machine(
    kind: str, options: str, locks: str
) -> None:
    found, why = FileSystem(kind, options=frozenset(options.split(","))).lock_kind()
    assert found == locks
    assert why
