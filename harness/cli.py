"""The command line: parse, call, print. Heavy imports stand inside the commands that need them."""

import contextlib
import errno
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from harness import __version__
from harness.encoding import tolerate_any_terminal, typed
from harness.errors import DataAbsent, HarnessError, InputError, Interrupted
from harness.masking import masked

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from rich.console import Console

    from harness.plan import Planner, RowPlan
    from harness.report.agreement import Agreement
    from harness.report.matrix import MatrixLine
    from harness.run import Runner
    from harness.spec.load import LoadedRow, Usable
    from harness.store import Artefact, Store

SPECS = click.argument("specs", nargs=-1, required=True, type=click.Path(path_type=Path))
VOLUME = click.option(
    "--volume",
    envvar="HARNESS_DATA",
    default="runs",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of artefacts and transcripts, shared by all stages. Also: HARNESS_DATA.",
)
DATA = click.option(
    "--inputs",
    "--data",
    "inputs",
    envvar="HARNESS_INPUTS",
    type=click.Path(path_type=Path),
    help="Folder of given data, `data:` in specs [default: inputs, if there]. "
    "Also: HARNESS_INPUTS.",
)
INPUTS = click.option(
    "--inputs",
    envvar="HARNESS_INPUTS",
    type=click.Path(path_type=Path),
    help="Folder of given data, `data:` in specs [default: inputs, if there]. "
    "Also: HARNESS_INPUTS.",
)
EXECUTOR = click.option(
    "--executor",
    type=click.Choice(["local", "docker"]),
    default="local",
    show_default=True,
    help="Where stages run: in this Python environment, or in the pinned images.",
)
SCALE = click.option(
    "--scale",
    type=click.Choice(["full", "tiny"]),
    default="full",
    show_default=True,
    help="tiny: the row's scaled-down twin, with a tiny random model, few prompts, and the simulated "
    "teacher and judge.",
)
ANY_EXECUTOR = click.option(
    "--executor",
    type=click.Choice(["local", "docker"]),
    help="Whose artefacts to read [default: docker's where a row has them, else local].",
)
ELSEWHERE = "Of a row elsewhere name its spec file."


class Group(click.Group):
    """Ends every foreseeable fault in one message and the documented exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        tolerate_any_terminal()
        return super().main(*args, **extra)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _masked_usage():
            return super().make_context(*args, **extra)

    def invoke(self, context: click.Context) -> Any:
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            with _masked_usage():
                return super().invoke(context)
        except HarnessError as e:
            _complain(e.message, e.hint)
            sys.exit(e.exit_code)
        except KeyboardInterrupt:
            _complain("stopped; what is finished stays.", "Run the same command again to go on.")
            sys.exit(Interrupted.exit_code)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except UnicodeEncodeError as e:
            if e.encoding.lower() == "utf-8" or e.encoding != sys.getfilesystemencoding():
                raise
            _complain(
                f"a file's name with {e.object[e.start]!r} cannot be used in this locale, "
                f"whose names are {e.encoding}",
                "Choose one of UTF-8: export LC_ALL=C.UTF-8",
            )
            sys.exit(2)
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                _complain(
                    f"no space left on the device{f' for {e.filename}' if e.filename else ''}",
                    "Free some (`harness gc` lists what no spec needs) and run the same command "
                    "again; what is finished stays.",
                )
                sys.exit(1)
            if e.filename is None:
                raise
            _complain(f"{e.filename} cannot be used: {e.strerror}", "")
            sys.exit(1)


@contextlib.contextmanager
def _masked_usage() -> "Iterator[None]":
    """Click's own errors repeat what was typed, which may be a key in the wrong place."""
    try:
        yield
    except click.UsageError as e:
        text = masked(e.format_message())
        if text == e.format_message():
            raise
        raise click.UsageError(text, e.ctx) from None


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _complain(message: str, hint: str) -> None:
    from harness.progress import plain

    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(plain(message), err=True)
    if hint:
        click.echo(plain(hint), err=True)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="harness")
def main() -> None:
    """Reproduce rows of instruction-tuning results tables.

    A row is one YAML file below specs/. Its stages (gen, train, answer, judge) leave artefacts on a
    volume, each under a key of everything that decided its content, and `harness table` fills the
    results matrix from them.

    Exit codes: 0 done, 1 a run failed, 2 the input is faulty, 130 stopped.
    """


@main.command()
@SPECS
@click.option(
    "--inputs",
    type=click.Path(path_type=Path),
    help="Folder of given data: check also that what the specs name is there, and has its sha256.",
)
def validate(specs: tuple[Path, ...], inputs: Path | None) -> None:
    """Check specs and report every fault.

    With file, line and column, the value at hand and what is allowed.
    """
    from harness.report.layout import layouts_beside

    rows = _load(specs)
    for folder in dict.fromkeys(row.path.parent for row in rows):
        layouts_beside(folder)
    summary = f"; {_check_given(rows, inputs)}" if inputs is not None else ""
    for line in _readings(rows, inputs):
        click.echo(line)
    click.echo(f"{len(rows)} row{'s' if len(rows) > 1 else ''}, no fault{summary}")


def _readings(rows: "list[LoadedRow]", inputs: Path | None) -> list[str]:
    """What the files hold that rows train on or import, each once, and a look at all else that stages
    read; without the folder of given data, of those that stand beside the specs."""
    from harness import preflight
    from harness.given import of_row
    from harness.keys import Files
    from harness.progress import plain
    from harness.spec.models import Row

    files = Files(_inputs(inputs) if inputs is not None else None, None)
    faults: dict[str, str] = {}
    lines: dict[str, None] = {}
    hints: dict[str, None] = {}

    def read(row: Row, files: Files) -> None:
        for reading in of_row(row, files):
            lines[plain(f"data: {reading}")] = None

    for loaded in rows:
        for check in (read, preflight.check_row):
            try:
                check(loaded.row, files)
            except DataAbsent:
                continue
            except InputError as e:
                faults.setdefault(e.message, f"{loaded.path}: {e.message}")
                hints[e.hint] = None
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''} in what the specs name"
        raise InputError("\n".join([*faults.values(), count]), "\n".join(filter(None, hints)))
    return list(lines)


def _check_given(rows: "list[LoadedRow]", inputs: Path) -> str:
    """Whether the given data of rows is there, with its bytes; what was found, in words."""
    from harness.keys import Files, iter_data

    files = Files(_inputs(inputs), None)
    faults: dict[str, str] = {}
    pinned: set[Path] = set()
    unpinned: set[Path] = set()
    for loaded in rows:
        for data in iter_data(loaded.row):
            try:
                (pinned if data.sha256 else unpinned).add(files.locate(data))
                files.digest(data) if data.sha256 else None
            except InputError as e:
                faults.setdefault(e.message, f"{loaded.path}: {e.message}")
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''} in the given data"
        raise InputError("\n".join([*faults.values(), count]))
    return f"given data: {len(pinned)} with the right sha256, {len(unpinned - pinned)} not pinned"


@main.command()
def schema() -> None:
    """Print the specs' JSON schema, for editors."""
    import json

    from harness.spec.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@main.command()
@SPECS
@SCALE
@VOLUME
@DATA
@EXECUTOR
def plan(
    specs: tuple[Path, ...], scale: str, volume: Path, inputs: Path | None, executor: str
) -> None:
    """Show what would run, and why.

    Each stage is to run, is reused, or is stale; with what changed, and calls and tokens to expect.
    """
    from harness.preflight import check
    from harness.report.plans import show_plans

    planner = _planner(volume, inputs, executor)
    plans = _plan(specs, planner, scale)
    show_plans(_console(), plans)
    planner.files.save()
    for row_plan in plans:
        check(row_plan, planner.files)


@main.command()
@SPECS
@click.option(
    "--only",
    metavar="STAGES",
    default="",
    help="Run these stages alone, comma-separated; their inputs must be there.",
)
@SCALE
@VOLUME
@DATA
@EXECUTOR
def run(
    specs: tuple[Path, ...],
    only: str,
    scale: str,
    volume: Path,
    inputs: Path | None,
    executor: str,
) -> None:
    """Run what is not there yet. Interrupted, the same command goes on.

    A stage gets the first of the GPUs that CUDA_VISIBLE_DEVICES lets be used, as many as it works on;
    HARNESS_ACCELERATOR=cpu: none.
    """
    from harness.environment import STAGES
    from harness.executors import make
    from harness.report.agreement import show_agreement
    from harness.report.matrix import agreements_of, lines_of, together
    from harness.report.terminal import show_matrix
    from harness.run import Runner, StagesFailed

    stages = [s.strip() for s in only.split(",") if s.strip()]
    unknown = [s for s in stages if s not in STAGES]
    if unknown or (only and not stages):
        wrong = unknown[0] if unknown else only
        raise InputError(f"--only {wrong!r} is no stage; there are {', '.join(STAGES)}")
    planner = _planner(volume, inputs, executor)
    console = _console()
    rows = _load(specs, scale)
    planner.store.prepare()
    plans = _plan_rows(rows, planner)
    for row_plan in plans:
        if stages and not any(s.stage in stages for s in row_plan.stages):
            console.print(f"row {row_plan.row.row} has no {' or '.join(stages)} stage")
    failed = None
    try:
        Runner(planner.store, planner.files, make(executor), console).run(plans, stages)
    except StagesFailed as e:
        failed = e
    planner.files.save()
    if not stages or {"judge", "train"} & set(stages):
        planned = {p.row.row for p in plans}
        lines = together([m for r in rows if r.row.row in planned for m in lines_of(r, [planner])])
        if lines:
            show_matrix(console, lines)
        planned_rows = [r for r in rows if r.row.row in planned]
        show_agreement(console, [a for r in planned_rows for a in agreements_of(r, [planner])])
    for row_plan in plans:
        data = row_plan.stages[-1] if row_plan.stages else None
        if data is not None and data.stage == "gen" and data.artefact is not None:
            card = data.artefact.folder / "card.md"
            console.print(f"row {row_plan.row.row}: its data card is {card}", markup=False)
    if failed is not None:
        raise failed


@main.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--label", default="", help="Which replicate, such as 'train seed 2'.")
@VOLUME
@DATA
def join(spec: Path, label: str, volume: Path, inputs: Path | None) -> None:
    """Take part, as another machine, in a row's training.

    For rows with train.launch.machines over 1: `harness run SPEC` on the first machine, this on each
    of the others, with the same volume and the same HARNESS_RENDEZVOUS=HOST:PORT.
    """
    from harness.join import join_row

    planner = _planner(volume, inputs, "local")
    join_row(planner.plan_model(_load((spec,))[0]), planner.store, label)


@main.command()
@SPECS
@VOLUME
@DATA
@EXECUTOR
def fetch(specs: tuple[Path, ...], volume: Path, inputs: Path | None, executor: str) -> None:
    """Download the hub models that rows name.

    `harness run` does this itself; the train service of compose, which has no network, cannot.
    """
    from harness.executors import make
    from harness.run import Runner

    planner = _planner(volume, inputs, executor)
    planner.store.prepare()
    plans = _plan(specs, planner)
    Runner(planner.store, planner.files, make(executor), _console()).fetch(plans)


@main.command()
@SPECS
def pin(specs: tuple[Path, ...]) -> None:
    """Write the revisions that specs leave open.

    Of every model and data set on the hub without a `revision`, the commit that it is at now is written
    into the file that names it, also where rows share that file. The rows' keys then are other ones.
    A private or gated one needs HF_TOKEN, or HF_TOKEN_FILE.
    """
    from harness.pin import pin as write_revisions

    done = write_revisions(specs)
    for pinned in done:
        place = pinned.place
        click.echo(f"{place.mark.file}:{place.mark.line}: {place.id} at {pinned.revision}")
    if not done:
        click.echo("no revision is open")


@main.command()
@click.argument("name", metavar="ROW")
@click.option("--to", required=True, metavar="DIR|FILE.zip|hub:OWNER/NAME", help="Where to.")
@click.option("--weights", is_flag=True, help="Of a crate: the models' weights too.")
@click.option(
    "--model", is_flag=True, help="Copy the trained model alone, with its card, into DIR."
)
@click.option("--public", is_flag=True, help="Make the model on the hub public [default: private].")
@click.option(
    "--revision", default="main", show_default=True, metavar="BRANCH", help="The hub's branch."
)
@click.option("--label", default="", help='Which of several models, for example "train seed 1".')
@click.option(
    "--simulated", is_flag=True, help="Upload a model whose data or weights are no real one's."
)
@SCALE
@VOLUME
@DATA
@EXECUTOR
def export(
    name: str,
    weights: bool,
    model: bool,
    scale: str,
    volume: Path,
    inputs: Path | None,
    executor: str,
    **target: Any,
) -> None:
    """Pack a row for others to replay, or give its trained model away.

    ROW is a row below specs/ or a spec file. To a folder or an archive (.zip): an RO-Crate with spec,
    manifests, transcripts, tables and the commands, of which `harness replay DIR|FILE.zip` computes
    every number anew with no key, GPU or network. To the hub, or with --model: the model with its
    card, log and template; the token is in HF_TOKEN, or in the file that HF_TOKEN_FILE names. In a
    container: docker compose run --rm --entrypoint "python -m harness export" fetch ROW --to
    hub:OWNER/NAME; a crate or a copy to a place on the volume, runs/NAME.zip.
    """
    from harness.executors import make
    from harness.export import HUB, Target
    from harness.export import export as export_model
    from harness.run import Runner

    if target["to"].lower().startswith(HUB):
        target["to"] = HUB + target["to"][len(HUB) :]
    planner = _planner(volume, inputs, executor)
    planner.store.prepare()
    loaded = _row_named(name, scale)
    console = _console()
    if model or target["to"].startswith(HUB):
        runner = Runner(planner.store, planner.files, make(executor), console)
        messages = export_model(runner, planner.plan_model(loaded), Target(**target))
    else:
        from harness.crate.pack import pack
        from harness.report.formats import to_csv, to_markdown

        plan = planner.plan(loaded)
        lines, _ = _lines([loaded], [planner])
        title = f"Row {plan.row.row}"
        tables = {"row.csv": to_csv(lines), "row.md": to_markdown(lines, title)} if lines else {}
        messages = pack(planner.store, planner.files, plan, tables, Path(target["to"]), weights)
    for line in messages:
        console.print(masked(line), highlight=False, markup=False, soft_wrap=True)


@main.command()
@click.argument("name", metavar="ROW")
@click.option("--seed", type=click.IntRange(0), help="Of the sampling [default: the row's].")
@click.option(
    "--temperature", type=click.FloatRange(0), help="0: greedy [default: the row's, else 0]."
)
@click.option(
    "--max-new-tokens", type=click.IntRange(1), help="Of an answer [default: the row's, else 2048]."
)
@click.option("--system", default="", help="A system message [default: the template's].")
@click.option("--once", metavar="TEXT", help="Answer this alone, and leave.")
@click.option("--label", default="", help='Which of several models, for example "train seed 1".')
@SCALE
@VOLUME
@DATA
@EXECUTOR
def chat(
    name: str, scale: str, volume: Path, inputs: Path | None, executor: str, **wishes: Any
) -> None:
    """Talk to a row's model, in the row's own template.

    To its trained model, or to its base model where it trains none. It runs in this Python
    environment; --executor says whose model. In a container: docker compose run --rm -it --entrypoint
    "python -m harness chat" eval ROW
    """
    from harness import variables
    from harness.chat import Wishes
    from harness.chat import chat as talk
    from harness.executors.local import LocalExecutor
    from harness.run import Runner

    planner = _planner(volume, inputs, executor)
    plan = planner.plan_model(_row_named(name, scale))
    wishes |= {option: typed(wishes[option]) for option in ("once", "system") if wishes[option]}
    runner = Runner(planner.store, planner.files, LocalExecutor(), _console())
    with variables.restored(variables.given("answer")):
        talk(runner, plan, Wishes(**wishes))


@main.command()
@click.argument("name", metavar="ROW|CRATE")
@click.option(
    "--stage",
    "kinds",
    type=click.Choice(["gen", "train", "answer", "judge"]),
    multiple=True,
    help="Only this stage; of a chain of recipes, every step [default: all].",
)
@SCALE
@VOLUME
@DATA
@EXECUTOR
def replay(
    name: str,
    kinds: tuple[str, ...],
    scale: str,
    volume: Path,
    inputs: Path | None,
    executor: str,
) -> None:
    """Recompute every number of a row from its artefacts, with no network.

    ROW is a row below specs/ or a spec file; CRATE the folder or archive that `harness export` made
    of one, with no volume, specs or given data beside it. Data sets are made again from their
    transcripts, scores from outputs, judges' replies and recorded results. Says `exact` of an
    artefact when every file has the digest, and every metric and count the value, that its manifest
    says; else which have not, and exit code 1. A training is not run again: its files are checked, and
    its losses read from its log. Inside an image, those stages alone are made again that run in it.
    """
    from harness.crate.unpack import is_crate, mount_of, opened
    from harness.executors import make
    from harness.run import Runner

    if is_crate(name):
        with opened(Path(name), executor) as crate:
            for note in crate.notes:
                click.echo(f"note: {note}", err=True)
            runner = Runner(crate.store, crate.files, make(executor), _console())
            _replay(runner, crate.plan, kinds, name, mount_of(Path(name)))
        return
    planner = _planner(volume, inputs, executor)
    planner.store.prepare()
    plan = planner.plan(_row_named(name, scale))
    twin = f" --scale {scale}" if scale != "full" else ""
    runner = Runner(planner.store, planner.files, make(executor), _console())
    _replay(runner, plan, kinds, name + twin)


def _replay(
    runner: "Runner", plan: "RowPlan", kinds: tuple[str, ...], name: str, mount: str = ""
) -> None:
    from harness.environment import STAGES
    from harness.replay import left_to_others, to_replay, where_replayed
    from harness.replay import replay as rebuild
    from harness.report.terminal import show_replayed, show_row_replayed

    stages = to_replay(plan, kinds or STAGES)
    left_out = left_to_others(stages)
    stages = [s for s in stages if s not in left_out]
    if not stages:
        raise InputError(
            f"row {plan.row.row}: none of its stages is replayed in this image",
            where_replayed(left_out, name, mount),
        )
    console = runner.console
    done = []
    for planned in stages:
        if planned.artefact is not None:
            done.append(rebuild(runner, planned))
            show_replayed(console, done[-1])
    show_row_replayed(console, plan, stages, done)
    if left_out:
        where = where_replayed(left_out, name, mount)
        console.print(
            f"left out, for they are not replayed in this image:\n{where}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    different = [r for r in done if not r.exact]
    if different:
        raise HarnessError(
            f"{len(different)} of {len(done)} artefacts came out different",
            "What differs is named above, with the folder that holds it.",
        )
    if len(done) < len(stages):
        raise InputError(
            f"{len(stages) - len(done)} of {len(stages)} artefacts are not on the volume, so the row "
            "is not replayed whole",
            f"Make them with harness run {plan.target}, or name the stages that are there: --stage.",
        )


@main.command()
@click.argument("specs", nargs=-1, metavar="[SPEC|TABLE]...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to write to [default: results/ on the volume, when no spec is named].",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["md", "csv", "latex", "html"]),
    help="Print the tables alone, in this form.",
)
@click.option(
    "--layout",
    type=click.Choice(["matrix", "study"]),
    default="matrix",
    show_default=True,
    help="With --format: the harness's columns, or a table like the study's own.",
)
@click.option("--all", "every_row", is_flag=True, help="Also rows that have no result.")
@SCALE
@ANY_EXECUTOR
@VOLUME
@DATA
def table(
    specs: tuple[str, ...],
    out: Path | None,
    form: str | None,
    layout: str,
    every_row: bool,
    scale: str,
    executor: str | None,
    volume: Path,
    inputs: Path | None,
) -> None:
    """Write the results matrix and the tables, or print them.

    They come from specs and manifests alone. Rows that have no result are counted and left out; a table
    in the study's own layout has its empty lines too.

    Without SPEC or TABLE: every row below specs/ whose spec has no fault, written to results/ on the
    volume. With them: the rows of those specs and tables, printed, and written where --out says.
    """
    from harness.report.agreement import show_agreement
    from harness.report.files import write_all
    from harness.report.formats import render
    from harness.report.matrix import data_alone, with_results
    from harness.report.terminal import show_matrix

    rows = _rows_of(specs, scale)
    planners = _planners(volume, inputs, executor)
    lines, agreements = _lines(rows, planners)
    listed, left_out = (lines, "") if every_row else with_results(lines)
    if form is not None:
        text = render(lines, agreements, form, layout, every_row)
        # Into a file it goes as `--out` would write it, whatever the terminal is.
        click.echo(text if sys.stdout.isatty() else text.encode(), nl=False)
    elif listed:
        show_matrix(_console(), listed)
    elif not lines:
        click.echo("none of these rows is trained or evaluated")
    if form is None:
        show_agreement(_console(), agreements)
    if left_out:
        click.echo(f"{left_out} (--all shows them all)", err=form is not None)
    unmeasured = data_alone(rows)
    if unmeasured:
        click.echo(unmeasured, err=form is not None)
    if out is None and not specs and form is None:
        out = volume / "results"
        if not listed and not out.exists():
            click.echo("nothing written", err=True)
            return
    if out is not None:
        write_all(lines, out, agreements, every_row)
        click.echo(f"written: {out / 'matrix.md'}, matrix.csv and tables/", err=True)


@main.command()
@click.argument("name", metavar="ROW")
@click.option("--json", "as_json", is_flag=True, help="The verdict as JSON.")
@SCALE
@ANY_EXECUTOR
@VOLUME
@DATA
def verify(
    name: str,
    as_json: bool,
    scale: str,
    executor: str | None,
    volume: Path,
    inputs: Path | None,
) -> None:
    """Say whether a row's reported number was reproduced, and why.

    Exit codes: 0 reproduced, 3 not reproduced, 4 everything else: inconclusive, not comparable, not
    run, simulated. Of several metrics the worst with a reported number: 3, then 4, then 0.
    """
    from harness.report.verify import show_verification

    planners = _planners(volume, inputs, executor)
    sys.exit(show_verification(_console(), _row_named(name, scale), planners, as_json))


@main.command()
@click.argument("first", metavar="ROW")
@click.argument("second", metavar="ROW")
@click.option("--json", "as_json", is_flag=True, help="The comparison as JSON.")
@SCALE
@ANY_EXECUTOR
@VOLUME
@DATA
def compare(
    first: str,
    second: str,
    as_json: bool,
    scale: str,
    executor: str | None,
    volume: Path,
    inputs: Path | None,
) -> None:
    """Compare two rows, prompt by prompt.

    The difference with its interval, how many prompts changed their verdict, the smallest difference
    that could have been seen, and every setting in which the rows differ beside the studied ones.
    """
    from harness.report.compare import show_comparison

    planners = _planners(volume, inputs, executor)
    show_comparison(
        _console(), _row_named(first, scale), _row_named(second, scale), planners, as_json
    )


@main.command()
@click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path)
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="JSON: an object for one result, a list of them for several.",
)
@click.option(
    "--data",
    "training_data",
    type=click.Path(path_type=Path),
    help="The data set that a trainer's log is compared with [default: one found beside the log].",
)
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="The prompt set or baseline outputs: how many prompts are expected, and which.",
)
def audit(
    paths: tuple[Path, ...], as_json: bool, training_data: Path | None, reference: Path | None
) -> None:
    """Recompute the numbers of result folders, ours or others', and look for faults.

    Reads alpaca_eval folders, AlpaGasus review files, lm-eval results, trainer logs, and this harness's
    artefacts. Exit codes: 0 no finding, 1 some, 2 nothing that could be read.
    """
    from harness.audit import audit_paths
    from harness.audit.view import show_audits, to_json

    results = audit_paths(paths, training_data=training_data, reference=reference)
    if as_json:
        click.echo(to_json(results))
    else:
        show_audits(_console(), results)
    sys.exit(1 if any(result.findings or result.matches is False for result in results) else 0)


@main.command()
@click.argument("specs", nargs=-1, metavar="[SPEC|TABLE]...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File to write [default: results/report.html on the volume].",
)
@click.option("--outputs", default=100, show_default=True, type=click.IntRange(0),
              help="Outputs of each row in the reader; 0: none.")  # fmt: skip
@SCALE
@ANY_EXECUTOR
@VOLUME
@DATA
def report(
    specs: tuple[str, ...],
    out: Path | None,
    outputs: int,
    scale: str,
    executor: str | None,
    volume: Path,
    inputs: Path | None,
) -> None:
    """Write one self-contained HTML page of the rows: matrix, each row's story, outputs.

    It asks for nothing over a network, and can be mailed as it is.
    """
    from harness.report.html import write_report

    planners = _planners(volume, inputs, executor)
    out = out or volume / "results" / "report.html"
    written = write_report(_rows_of(specs, scale), planners, out, outputs)
    click.echo(written)


@main.command()
@click.argument("name", metavar="ROW|KEY")
@click.option("--json", "as_json", is_flag=True, help="The manifests as JSON.")
@click.option("--check", is_flag=True, help="Compare every file with its digest.")
@click.option("--data", "card", is_flag=True, help="The data cards in place of the manifests.")
@click.option("--prompt", is_flag=True, help="The row's template, filled, and what is trained on.")
@click.option("--outputs", is_flag=True, help="Its answers, baseline's answers and judge's words.")
@click.option("--worst", is_flag=True, help="Of outputs: the lowest preference or score first.")
@click.option("--best", is_flag=True, help="Of outputs: the highest first.")
@click.option("--flagged", is_flag=True, help="Of outputs: flagged or unjudged ones alone.")
@click.option("--grep", default="", metavar="TEXT", help="Of outputs: those where it stands.")
@click.option(
    "-n",
    "--count",
    default=10,
    show_default=True,
    type=click.IntRange(0),
    help="Of outputs: how many; 0: all.",
)
@click.option("--full", is_flag=True, help="Of outputs: long texts whole.")
@click.option("--label", default="", help="Which of several outputs, such as 'train seed 2'.")
@SCALE
@VOLUME
@INPUTS
@EXECUTOR
def show(
    name: str,
    as_json: bool,
    check: bool,
    card: bool,
    prompt: bool,
    outputs: bool,
    scale: str,
    volume: Path,
    inputs: Path | None,
    executor: str,
    **wishes: Any,
) -> None:
    """Print the manifests of a row's artefacts, its data sets' cards, prompts or outputs.

    ROW is a row below specs/ or a spec file; KEY the beginning of an artefact's key (or STAGE/KEY). Of
    a row whose judge judged the same outputs again, also how far it agrees with itself.
    """
    import json

    from harness.report.terminal import show_artefact, show_data

    if prompt:
        from harness.report.prompts import show_prompts

        show_prompts(_console(), _row_named(name, scale), _planner(volume, inputs, executor))
        return
    # What narrows outputs down asks for them.
    if outputs or any(value for option, value in wishes.items() if option != "count"):
        from harness.report.outputs import OutputOptions
        from harness.report.outputs_view import show_outputs

        plan = _planner(volume, inputs, executor).plan(_row_named(name, scale))
        show_outputs(_console(), plan, OutputOptions(**wishes), as_json)
        return
    planner = _planner(volume, inputs, executor)
    artefacts, loaded = _find_artefacts(name, planner, scale)
    for artefact in artefacts if check else []:
        artefact.check()
    if card:
        show_data(_console(), artefacts, as_json)
        return
    if as_json:
        click.echo(json.dumps([a.manifest for a in artefacts], indent=2, sort_keys=True))
        return
    for artefact in artefacts:
        show_artefact(_console(), artefact, checked=check)
    if loaded is not None and sum(artefact.stage == "judge" for artefact in artefacts) > 1:
        from harness.report.agreement import show_agreement
        from harness.report.matrix import agreements_of

        show_agreement(_console(), agreements_of(loaded, [planner]))


@main.command()
@click.argument("artefacts", nargs=-1, metavar="[STAGE/KEY]...")
@click.option("--specs", default=None, type=click.Path(path_type=Path), help="[default: specs]")
@click.option("--yes", is_flag=True, help="Remove what is listed.")
@VOLUME
@DATA
def gc(
    artefacts: tuple[str, ...], specs: Path | None, yes: bool, volume: Path, inputs: Path | None
) -> None:
    """List, and with --yes remove, what is not needed.

    That is what no spec below specs/ refers to as it stands now; or the artefacts named.
    """
    from rich.filesize import decimal

    from harness.gc import collect, named_items, remove

    store = _store(volume)
    if artefacts:
        items = named_items(store, artefacts)
    else:
        planners = [_planner(volume, inputs, name) for name in ("docker", "local")]
        items = collect(store, _load((specs or _spec_folder(),)), planners)
    size = 0
    for item in items:
        size += item.size
        click.echo(f"{item.name}  {decimal(item.size)}  {item.why}")
    words = f"{len(items)} item{'' if len(items) == 1 else 's'}, {decimal(size)}"
    if yes:
        remove(store, items)
        click.echo(f"removed {words}")
    else:
        click.echo(f"{words}" + ("; add --yes to remove them" if items else ""))


@main.command()
@VOLUME
@DATA
def doctor(volume: Path, inputs: Path | None) -> None:
    """Say what is there, and what each lack would prevent.

    Looked for: engine, Compose, images, GPUs (driver, capability, container toolkit), local packages,
    disk, keys (by name), given data.
    """
    from harness.doctor import examine
    from harness.report.terminal import show_findings

    show_findings(_console(), examine(volume, _inputs(inputs)))


@main.command()
@click.option(
    "--port",
    default=8008,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0: any that is free.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--allow-remote", is_flag=True, help="Let --host be other than this machine.")
@click.option("--seed", default=0, show_default=True, help="Another seed, other replies.")
@click.option(
    "--error-rate",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of judgements that are turned round.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND=SHARE",
    help="Misbehave: 429, 500, slow, hang, cut, html, refuse or format, for example 429=0.05.",
)
def sim(
    port: int, host: str, allow_remote: bool, seed: int, error_rate: float, faults: tuple[str, ...]
) -> None:
    """Serve the simulated teacher and judge.

    OpenAI-compatible, on this machine alone, until stopped. What it answers is marked simulated.
    """
    from pydantic import ValidationError

    from harness.sim.server import serve
    from harness.spec.base import Simulated

    shares = dict(f.partition("=")[::2] for f in faults)
    try:
        settings = Simulated.model_validate(
            {"seed": seed, "error_rate": error_rate, "faults": shares}
        )
    except ValidationError as e:
        raise InputError(
            f"--fault: {e.errors()[0]['msg']}", "Give KIND=SHARE, for example --fault 429=0.05."
        ) from None
    serve(settings, host=host, port=port, allow_remote=allow_remote)


def _rows_of(names: tuple[str, ...], scale: str) -> "list[LoadedRow]":
    """The rows of spec files, folders and tables; without any, every row below specs/ that has no
    fault."""
    from harness.spec.load import SpecFaults

    paths = [name for name in names if name.endswith((".yaml", ".yml")) or Path(name).is_dir()]
    tables = [name for name in names if name not in paths]
    rows = _load(tuple(map(Path, paths)), scale) if paths else []
    if names and not tables:
        return rows
    usable = _usable()
    if not usable.rows:
        raise SpecFaults(usable.faults)
    _tell_faulty(usable)
    table_names = sorted({row.row.table for row in usable.rows})
    selection = [] if names else [(table, scale) for table in table_names]
    for name in tables:
        table, size = _twin_of(name, scale, table_names)
        if table not in table_names:
            raise InputError(
                f"there is no table {name!r} below specs/, and no spec of this name",
                f"Tables: {', '.join(table_names)}. Of rows elsewhere name their spec files or folder.",
            )
        selection.append((table, size))
    loaded_keys = {(row.path, row.row.scale) for row in rows}
    for size in ("full", "tiny"):
        scaled_rows = _scaled(
            [row for row in usable.rows if (row.row.table, size) in selection], size
        )
        rows += [row for row in scaled_rows if (row.path, row.row.scale) not in loaded_keys]
    return rows


def _twin_of(name: str, scale: str, names: "Container[str]") -> tuple[str, str]:
    """The row or table that a name means, and its scale: NAME-tiny, as tables print it, is the twin
    of NAME."""
    from harness.spec.scale import SUFFIX

    of = name.removesuffix(SUFFIX)
    return (of, "tiny") if name not in names and of in names else (name, scale)


def _planners(volume: Path, inputs: Path | None, executor: str | None) -> "list[Planner]":
    """One for each executor whose artefacts are read; they share what they know of files."""
    names = [executor] if executor else ["docker", "local"]
    planners = [_planner(volume, inputs, name) for name in names]
    return [planners[0], *(_sharing(planners[0], p) for p in planners[1:])]


def _lines(
    rows: "list[LoadedRow]", planners: "list[Planner]"
) -> "tuple[list[MatrixLine], list[Agreement]]":
    from harness.report.matrix import agreements_of, lines_of, together

    lines = together([line for row in rows for line in lines_of(row, planners)])
    agreements = [agreement for row in rows for agreement in agreements_of(row, planners)]
    planners[0].files.save()
    return lines, agreements


def _load(specs: tuple[Path, ...], scale: str = "full") -> "list[LoadedRow]":
    from harness.spec.load import load_rows

    return _scaled(load_rows(specs), scale)


def _scaled(rows: "list[LoadedRow]", scale: str) -> "list[LoadedRow]":
    if scale == "full":
        return rows
    from harness.spec.scale import scaled

    return [scaled(row) for row in rows]


def _usable() -> "Usable":
    from harness.spec.load import load_usable

    return load_usable((_spec_folder(),))


def _tell_faulty(usable: "Usable") -> None:
    count = len(usable.faulty)
    if count:
        summary = f"{count} spec{'s have' if count > 1 else ' has'} faults"
        click.echo(f"warning: {summary}: `harness validate specs` lists them", err=True)


def _spec_folder() -> Path:
    folder = Path("specs")
    if not folder.is_dir():
        raise InputError("there is no specs/ folder here", "Name specs, or go to the checkout.")
    return folder


def _inputs(inputs: Path | None) -> Path | None:
    if inputs is None:
        return Path("inputs") if Path("inputs").is_dir() else None
    if not inputs.is_dir():
        raise InputError(
            f"the folder of given data {inputs} is not there",
            "Name one that is with --inputs or HARNESS_INPUTS.",
        )
    return inputs


def _store(volume: Path) -> "Store":
    from harness.store import Store

    return Store(volume.resolve())


def _planner(volume: Path, inputs: Path | None, executor: str) -> "Planner":
    from harness import prices
    from harness.keys import Files
    from harness.plan import Planner

    store = _store(volume)
    files: Files = Files(_inputs(inputs), store.root / "cache" / "digests.json")
    return Planner(store, files, executor, prices.load())


def _sharing(first: "Planner", other: "Planner") -> "Planner":
    other.files = first.files
    return other


def _plan(specs: tuple[Path, ...], planner: "Planner", scale: str = "full") -> "list[RowPlan]":
    plans = _plan_rows(_load(specs, scale), planner)
    planner.files.save()
    return plans


def _plan_rows(rows: "list[LoadedRow]", planner: "Planner") -> "list[RowPlan]":
    """Plans; of a folder of specs, a row whose given data is absent is left out, and said."""
    plans = []
    absent: dict[str, list[str]] = {}
    for loaded in rows:
        try:
            plans.append(planner.plan(loaded))
        except HarnessError as e:
            if isinstance(e, DataAbsent) and not loaded.named:
                for name in _absent(loaded, planner):
                    absent.setdefault(name, []).append(loaded.row.row)
                continue
            e.message = f"{loaded.path}: {e.message}"
            raise
    if absent:
        from harness.keys import where_given
        from harness.progress import plain

        click.echo("left out, for their given data is absent:", err=True)
        for data, left_out in absent.items():
            click.echo(plain(f"  {data}: {', '.join(left_out)}"), err=True)
        way_out = where_given(planner.files.inputs)
        if rows and not plans:
            raise InputError("no row is left", way_out)
        click.echo(way_out, err=True)
    return plans


def _absent(loaded: "LoadedRow", planner: "Planner") -> list[str]:
    """The given data of a row that is not there, as its spec names it."""
    from harness.keys import iter_data

    paths = []
    for data in iter_data(loaded.row):
        try:
            planner.files.locate(data)
        except DataAbsent:
            paths.append(data.path)
    return list(dict.fromkeys(paths)) or ["what another row reads whose answers it needs"]


def _row_named(name: str, scale: str = "full") -> "LoadedRow":
    """The row with this id below specs/, or that of the spec file `name`; or its twin."""
    if name.endswith((".yaml", ".yml")):
        return _load((Path(name),), scale)[0]
    usable = _usable()
    loaded = _among(usable, name, scale)
    if loaded is not None:
        _tell_faulty(usable)
        return loaded
    raise _unknown(name, f"there is no row {name!r} below specs/", usable)


def _among(usable: "Usable", name: str, scale: str) -> "LoadedRow | None":
    """The row, or its twin, that `name` means."""
    rows_by_name = {loaded.row.row: loaded for loaded in usable.rows}
    row, scale = _twin_of(name, scale, rows_by_name)
    return _scaled([rows_by_name[row]], scale)[0] if row in rows_by_name else None


def _unknown(name: str, message: str, usable: "Usable | None") -> InputError:
    """No usable spec has the row: the faults of the others are the error, where there are any."""
    import difflib

    from harness.spec.load import SpecFaults

    if usable is not None and usable.faults:
        return SpecFaults(usable.faults, f"Of the specs without faults: {message}. {ELSEWHERE}")
    near = difflib.get_close_matches(name, [r.row.row for r in usable.rows] if usable else [], n=3)
    hint = f"Near: {', '.join(near)}." if near else "`harness plan specs` lists rows and keys."
    return InputError(message, f"{hint} {ELSEWHERE}")


def _find_artefacts(
    name: str, planner: "Planner", scale: str
) -> "tuple[list[Artefact], LoadedRow | None]":
    """The artefacts of a row (see `_row_named`), and that row; or those whose key begins so."""
    from harness.plan import target

    if not name.rpartition("/")[2]:
        raise InputError("name a row, or the beginning of a key")
    of_file = name.endswith((".yaml", ".yml"))
    usable = _usable() if Path("specs").is_dir() and not of_file else None
    if of_file:
        loaded: LoadedRow | None = _row_named(name, scale)
    else:
        loaded = _among(usable, name, scale) if usable else None
    if loaded is not None:
        artefacts = [s.artefact for s in planner.plan(loaded).stages if s.artefact is not None]
        if not artefacts:
            raise InputError(
                f"row {loaded.row.row} has no artefact on {planner.store.root} made by this executor",
                f"Make them: harness run {target(loaded.row, loaded.path)}",
            )
    else:
        artefacts = planner.store.match(name)
        if not artefacts:
            message = (
                f"{name!r} is neither a row below specs/ nor the beginning of a key on "
                f"{planner.store.root}"
            )
            raise _unknown(name, message, usable)
    if usable is not None:
        _tell_faulty(usable)
    return artefacts, loaded


def _console() -> "Console":
    from rich.console import Console

    console = Console(emoji=False)
    if not console.is_terminal:
        console.width = 200
    return console


if __name__ == "__main__":
    main()
