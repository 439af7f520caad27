"""Whether a node's checkout is the one that stages were submitted from."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.run.slurm import checkout
from harness.run.slurm.checkout import Checkout, differing

HERE = Checkout("/shared/harness", "a" * 40, "c" * 64, 7)


def test_a_commit_that_was_made_meanwhile_in_the_shared_checkout_refuses_no_job() -> None:
    assert differing(HERE, replace(HERE, commit="b" * 40), "n1") == ""


def test_another_checkout_at_another_commit_is_told_with_both_commits() -> None:
    told = differing(HERE, replace(HERE, commit="b" * 40, inode=8), "n1")
    assert "aaaaaaaaaaaa" in told
    assert "bbbbbbbbbbbb" in told


def test_code_that_somebody_edited_is_told_where_the_commit_is_the_same() -> None:
    told = differing(HERE, replace(HERE, code="d" * 64), "n1")
    assert "somebody has edited the code" in told
    assert "cccccccccccc" in told
    assert "dddddddddddd" in told


def test_a_job_refuses_a_checkout_that_is_not_its_own() -> None:
    found = checkout.here()
    checkout.check_same(found, "n1")
    with pytest.raises(InputError, match="000000000000"):
        checkout.check_same(replace(found, commit="0" * 40, inode=1), "n1")


@pytest.mark.parametrize("form", ["detached", "branch", "packed", "worktree"])
def test_the_commit_is_read_without_git(tmp_path: Path, form: str) -> None:
    git, commit = tmp_path / ".git", "0123456789" * 4
    if form == "worktree":
        shared = tmp_path / "main"
        git.write_text(f"gitdir: {shared}/worktrees/x\n")
        (shared / "worktrees/x").mkdir(parents=True)
        (shared / "worktrees/x/commondir").write_text("../..\n")
        (shared / "worktrees/x/HEAD").write_text("ref: refs/heads/x\n")
        (shared / "refs/heads").mkdir(parents=True)
        (shared / "refs/heads/x").write_text(commit + "\n")
    else:
        (git / "refs/heads").mkdir(parents=True)
        (git / "HEAD").write_text(commit if form == "detached" else "ref: refs/heads/main\n")
    if form == "branch":
        (git / "refs/heads/main").write_text(commit + "\n")
    if form == "packed":
        (git / "packed-refs").write_text(f"# pack-refs\n{commit} refs/heads/main\n")
    assert checkout._commit(tmp_path) == commit
