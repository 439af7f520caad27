"""Runs a stage in its pinned image by charliecloud's ch-run, which needs no privilege, no service and
no control group: an image is a folder.

What ch-run itself does not do, cutting off the network and write-protecting inputs, the kernel does
for any user (harness.run.executors.cut_off), where it allows user namespaces, which ch-run needs too.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.errors import InputError
from harness.run.executors import cut_off
from harness.run.executors.image_archive import CONFIG, ImageConfig
from harness.run.executors.mounts import WORK, Bind
from harness.run.executors.process import Container, ImageFile, ProcessExecutor
from harness.stage import PARENT_VARIABLE

PROGRAM = "ch-run"


class CharliecloudExecutor(ProcessExecutor):
    name = "charliecloud"

    @classmethod
    def find_program(cls) -> str:
        program = shutil.which(PROGRAM)
        if program is None:
            raise InputError(
                f"{PROGRAM} is not on this machine",
                "Install charliecloud (on Debian or Ubuntu: apt install charliecloud-runtime), or use "
                "another executor: `harness doctor` shows what is there.",
            )
        return program

    def image_path(self, tag: str) -> Path:
        return self._images / tag.replace(":", "-")

    def read_image(self, path: Path) -> ImageFile:
        try:
            config = ImageConfig.read((path / CONFIG).read_bytes())
        except (OSError, ValueError):
            raise InputError(
                f"{path} is no image that `harness images` made",
                "Remove it and make it anew: harness images --executor charliecloud --help",
            ) from None
        return ImageFile(path, config.id, config.labels, config.variables)

    def start(
        self, container: Container, command: Sequence[str]
    ) -> tuple[list[str], dict[str, str]]:
        """Host variables are all left out but those the stage is given; /tmp is in memory, the root is
        read-only, and no home folder is there, as ch-run has it unless told otherwise."""
        if why := cut_off.refusal():
            raise InputError(why, "Charliecloud needs user namespaces: `harness doctor` says more.")
        before = cut_off.prefix(
            [str(bind.source) for bind in container.binds if bind.is_read_only],
            container.has_network,
        )
        variables = container.scratch / "variables"
        given = container.variables
        variables.write_text("".join(f"{n}={v}\n" for n, v in given.items()), encoding="utf-8")
        words = [self.program, "--private-tmp", f"--cd={WORK}"]
        words += ["--unset-env=*", "--env-no-expand", f"--set-env={variables}"]
        binds = [*_stand_ins(container), *container.binds]
        words += [f"--bind={bind.source}:{bind.inside}" for bind in binds]
        # ch-run itself asks for the first two.
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        kept["USER"] = os.environ.get("USER") or str(os.getuid())
        return [*before, *words, str(container.image.path), "--", *command], kept

    def ties(self) -> dict[str, str]:
        return {PARENT_VARIABLE: str(os.getpid())}


def _stand_ins(container: Container) -> list[Bind]:
    """Folders with an empty file or folder for each path that is mounted below /inputs and the like: an
    image is read-only, and has no more than the first folder of each path."""
    tops: dict[str, Bind] = {}
    for bind in container.binds:
        _, top, *rest = bind.inside.split("/")
        if not rest:
            continue
        if top == "run":
            top, rest = f"{top}/{rest[0]}", rest[1:]
        source = container.scratch / "stand-ins" / top
        tops[top] = Bind(f"/{top}", source)
        place = source.joinpath(*rest)
        if bind.source.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
    return list(tops.values())
