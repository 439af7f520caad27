"""`harness gc`."""

from pathlib import Path

import click

from harness.cli.options import DATA, VOLUME
from harness.cli.workspace import Workspace, echo, load_specs, spec_folder, with_workspace

MOST_NAMES = 5
ELSEWHERE = "not among the specs looked at; name them with --specs"


@click.command()
@click.argument("artefacts", nargs=-1, metavar="[STAGE/KEY]...")
@click.option(
    "--specs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="What is referred to from these is needed; may be given several times  [default: specs]",
)
@click.option("--yes", is_flag=True, help="Remove what is listed.")
@with_workspace(VOLUME, DATA)
def gc(
    artefacts: tuple[str, ...], specs: tuple[Path, ...], yes: bool, workspace: Workspace
) -> None:
    """List, and with --yes remove, what is not needed.

    That is what no spec below specs/ (or those of --specs) refers to as it stands now, nor `harness
    settle` bought for it, or for a row whose spec is not among them; or the artefacts named. What a
    stage that runs or is submitted reads is kept, and said.
    """
    from harness.common.numbers import byte_size
    from harness.common.progress import counted
    from harness.results.course import files
    from harness.results.settle import bought
    from harness.run.gc import collect, named_items, remove, strangers, used_by, uses

    store = workspace.store()
    others: list[str] = []
    if artefacts:
        items = named_items(store, artefacts)
    else:
        planners = [workspace.planner(name) for name in ("docker", "local")]
        rows = load_specs(specs or (spec_folder(),))
        settled = [of for loaded in rows for of in bought(loaded, store.root)]
        names = {loaded.row.row for loaded in rows}
        courses = {path: row for path, row in files(store.root).items() if row not in names}
        items = collect(store, rows, planners, settled, list(courses.values()))
        for path, row in courses.items():
            echo(f"kept: all of {row}, which harness settle bought for ({path}): {ELSEWHERE}")
        in_use, kept = uses(store), {}
        for item in items:
            if words := used_by(store, item, in_use):
                kept[item] = words
                echo(f"kept: {item.name}, for {words}")
        items = [item for item in items if item not in kept]
        others = strangers(store, items, rows)
    size = 0
    for item in items:
        size += item.size
        echo(f"{item.name}  {byte_size(item.size)}  {item.why}")
    if others:
        more = ", ..." * (len(others) > MOST_NAMES)
        told = f"{counted(len(others), 'row')} ({', '.join(others[:MOST_NAMES])}{more})"
        echo(f"some of it was made for {told}: {ELSEWHERE}")
    words = f"{len(items)} item{'' if len(items) == 1 else 's'}, {byte_size(size)}"
    if yes:
        remove(store, items)
        echo(f"removed {words}")
    else:
        echo(f"{words}" + ("; add --yes to remove them" if items else ""))
