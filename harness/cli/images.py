"""`harness images`."""

from pathlib import Path

import click

from harness.cli.options import VOLUME
from harness.cli.workspace import make_console


@click.command()
@click.argument("archives", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--executor",
    type=click.Choice(["apptainer", "charliecloud"]),
    required=True,
    help="Whose image files to make.",
)
@VOLUME
def images(archives: tuple[Path, ...], executor: str, volume: Path) -> None:
    """Make the image files that apptainer and charliecloud run.

    They are made once for each build of the images: of ARCHIVES, as `docker save`, `podman save` and
    buildx write them, or without any of what Docker or podman has here. They lie in the folder that
    HARNESS_IMAGES names, else in `images` on the volume;
    a Slurm node needs to see it.
    """
    from harness.run.image_files import make_files

    make_files(executor, archives, volume, make_console())
