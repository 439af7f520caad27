"""`harness doctor`."""

import click

from harness.cli.options import DATA, VOLUME
from harness.cli.workspace import Workspace, inputs_folder, make_console, with_workspace


@click.command()
@with_workspace(VOLUME, DATA)
def doctor(workspace: Workspace) -> None:
    """Say what is there, and what each lack would prevent.

    Looked for: engines (Docker, podman, Apptainer, Charliecloud), Compose, images, GPUs (driver,
    capability, container toolkit), local packages, disk, keys (by name), given data; of the volume its
    file system, which locks hold there (two processes try), whether renames are atomic, its server's
    clock; where caches are (HARNESS_CACHE). Of Slurm, where it is or harness.toml speaks of it: its
    version, whether it would take a job with this place's settings, whether nodes may see the volume.
    """
    from harness.cli.views.terminal import show_checks
    from harness.common.progress import say
    from harness.run.doctor import examine, summary

    console = make_console()
    checks = examine(workspace.volume, inputs_folder(workspace.inputs))
    show_checks(console, checks)
    say(console, summary(checks))
