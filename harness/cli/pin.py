"""`harness pin`."""

from pathlib import Path

import click

from harness.cli.options import SPECS


@click.command()
@SPECS
def pin(specs: tuple[Path, ...]) -> None:
    """Write the revisions that specs leave open.

    Of every model and data set on the hub without a `revision`, the commit that it is at now is written
    into the file that names it, also where rows share that file. The rows' keys then are other ones.
    A private or gated one needs HF_TOKEN, or HF_TOKEN_FILE.
    """
    from harness.run.pin import pin as write_revisions

    done = write_revisions(specs)
    for pinned in done:
        place = pinned.place
        click.echo(f"{place.mark.file}:{place.mark.line}: {place.id} at {pinned.revision}")
    if not done:
        click.echo("no revision is open")
