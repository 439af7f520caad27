"""The page that a person reads first in a crate."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.artefact.environment import kind_of
from harness.common.escape import markdown
from harness.run.plan import RowPlan, StagePlan


def readme_of(
    plan: RowPlan,
    stages: Sequence[StagePlan],
    given_files: Mapping[str, str],
    left_out: Sequence[str],
) -> str:
    """Markdown: what the row is, how to replay it, how it was made.

    given_files: a given file's name in the crate -> as the spec names it.
    """
    row = plan.row
    parts = [f"# {markdown(row.row)}: {markdown(row.title)}", ""]
    if row.source is not None:
        where = ", ".join(filter(None, (row.source.document, row.source.table)))
        parts += [f"A row of {markdown(where)}.", ""]
    parts += [
        "## Replay",
        "",
        "Every number of this row can be computed anew from what is here, with no key, no GPU and no "
        "network, to the last digit. With the harness installed, in the folder (or on the archive):",
        "",
        "    harness replay .",
        "",
        "Or in its image, which brings all packages, from a clone of the harness:",
        "",
        "    cd /path/to/the/clone",
        "    docker compose run --rm -v /path/to/this/crate:/crate:ro --entrypoint "
        '"python -m harness replay /crate" eval',
        "",
        "A training is not run again: its files are checked, and its losses read from its log.",
        "",
        "## How it was made",
        "",
        "In a checkout of the harness that holds these specs and the given data:",
        "",
        f"    {_run_command(stages[-1], plan)}",
        "",
        "The copies in `spec/` are for reading: the given data that they name stands elsewhere here"
        + (":" if given_files else "."),
        "",
    ]
    if given_files:
        parts += ["| given data | here |", "| --- | --- |"]
        parts += [f"| {markdown(path)} | {markdown(name)} |" for name, path in given_files.items()]
        parts += [""]
    parts += [
        "| stage | artefact | ran in | made |",
        "| --- | --- | --- | --- |",
    ]
    for planned in stages:
        manifest = planned.made.manifest
        environment = manifest.document["environment"]
        where = kind_of(environment)
        if "lock" in environment:
            where += f", lock {environment['lock'][:12]}"
        place = f"artefacts/{planned.stage}/{planned.made.folder.name}"
        parts.append(f"| {markdown(planned.name)} | {place} | {where} | {manifest.finished} |")
    for heading, notes in (
        ("Deviations", row.stated("deviation")),
        ("Assumptions", row.stated("assumption")),
    ):
        if notes:
            parts += ["", f"## {heading}", "", *(f"- {markdown(note)}" for note in notes)]
    if left_out:
        parts += ["", "## Left out", "", "Weights, which a replay does not read:", ""]
        parts += [f"- {markdown(name)}" for name in left_out]
    parts += [
        "",
        "Data under `given/` and `datasets/` is others': their licences hold for it.",
    ]
    return "\n".join(parts) + "\n"


def _run_command(last: StagePlan, plan: RowPlan) -> str:
    executor = " --executor docker" if kind_of(last.document["environment"]) != "local" else ""
    twin = f" --scale {plan.row.scale}" if plan.row.scale != "full" else ""
    spec = plan.spec
    # Where it stood on a machine is that machine's own.
    inside = spec if not spec.is_absolute() and ".." not in spec.parts else Path("specs", spec.name)
    return f"harness run{executor}{twin} {inside}"
