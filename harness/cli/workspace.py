"""What commands work with: specs, the volume, given data, plans."""

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.errors import DataAbsent, HarnessError, InputError, NotFetched

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from rich.console import Console

    from harness.artefact.keys import Files
    from harness.artefact.store import Damaged, Store, Unusable
    from harness.crate.unpack import Opened
    from harness.results.agreement import Agreement
    from harness.results.line import MatrixLine
    from harness.row.load import LoadedRow, Usable
    from harness.run.executors import Executor
    from harness.run.plan import Planner, RowPlan
    from harness.run.runner import Runner
    from harness.spec.source import Mark


FROM_SCRATCH = "from_scratch"
"""The folder of a study's rows whose data is made anew; those beside it have the published data."""
ELSEWHERE = "Of a row elsewhere name its spec file."


@dataclass(frozen=True)
class Workspace:
    """Specs, the volume and given data, as a command's options name them."""

    volume: Path
    inputs: Path | None
    executor: str = "local"
    """Empty: that of the images where a row has artefacts of it, else local."""
    scale: str = "full"

    def store(self) -> "Store":
        from harness.artefact.store import Store

        return Store(self.volume.resolve())

    def planner(self, executor: str = "", kind: "type[Files] | None" = None) -> "Planner":
        """`executor`: in place of the option's; `kind`: of what finds the given files."""
        from harness.artefact import environment
        from harness.artefact.keys import Files
        from harness.llm import prices
        from harness.run.plan import Planner

        environment.accelerator()  # a fault in what names it is none of a spec's
        store = self.store()
        cache = store.root / "cache" / "digests.json"
        files = (kind or Files)(inputs_folder(self.inputs), cache, store.files_folder)
        return Planner(store, files, executor or self.executor, prices.load())

    def planners(self) -> "list[Planner]":
        """One for each executor whose artefacts are read; they share what they know of files."""
        names = [self.executor] if self.executor else ["docker", "local"]
        planners = [self.planner(name) for name in names]
        for planner in planners[1:]:
            planner.files = planners[0].files
        return planners

    def results_folder(self, rows: "list[LoadedRow]") -> Path:
        """Where what is written of these rows goes; twins alone have a place of their own."""
        folder = self.volume / "results"
        return folder / "tiny" if {row.row.scale for row in rows} == {"tiny"} else folder

    def new_executor(self) -> "Executor":
        from harness.run.executors import make

        return make(self.executor, self.volume)

    def runner(self, source: "Planner | Opened", console: "Console") -> "Runner":
        """`source`: whose volume and files it works on."""
        from harness.run.runner import Runner

        return Runner(source.store, source.files, self.new_executor(), console)

    @contextlib.contextmanager
    def plans(self, specs: tuple[Path, ...], planner: "Planner") -> "Iterator[list[RowPlan]]":
        """The rows' plans; what was damaged of the rows that are left out is the error, once the others
        are dealt with.

        Raises:
            InputError: as Planner.plan.
            HarnessError: artefacts of rows are damaged.
        """
        damaged: dict[str, Damaged] = {}
        yield plan_rows(self.rows_to_run(specs), planner, damaged, with_results=True)
        planner.files.save()
        if damaged:
            from harness.run.failures import tell_damaged

            tell_damaged([*damaged.values()])

    def rows_to_run(self, specs: tuple[Path, ...]) -> "list[LoadedRow]":
        return rows_to_run(specs, self.scale)

    def row(self, name: str) -> "LoadedRow":
        return row_named(name, self.scale)


def with_workspace(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """These options, which are fields of a Workspace, for a command that takes it as `workspace`."""

    def decorated(command: Callable[..., Any]) -> Any:
        @functools.wraps(command)
        def called(**arguments: Any) -> Any:
            names = {field.name for field in fields(Workspace)} & arguments.keys()
            workspace = Workspace(**{name: arguments.pop(name) for name in names})
            return command(workspace=workspace, **arguments)

        return functools.reduce(lambda f, option: option(f), reversed(options), called)

    return decorated


def rows_of(names: tuple[str, ...], scale: str) -> "list[LoadedRow]":
    """The rows of spec files, folders and tables; without any, every row below specs/ that has no
    fault."""
    from harness.row.load import SpecFaults

    paths = [name for name in names if name.endswith((".yaml", ".yml")) or Path(name).is_dir()]
    tables = [name for name in names if name not in paths]
    rows = load_specs(tuple(map(Path, paths)), scale) if paths else []
    if names and not tables:
        return rows
    usable = usable_specs()
    if not usable.rows:
        raise SpecFaults(usable.faults)
    tell_faulty(usable)
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
    from harness.row.twin import SUFFIX

    of = name.removesuffix(SUFFIX)
    return (of, "tiny") if name not in names and of in names else (name, scale)


def matrix_lines(
    rows: "list[LoadedRow]", planners: "list[Planner]", damaged: "dict[str, Unusable]"
) -> "tuple[list[MatrixLine], list[Agreement]]":
    """See harness.results.matrix.lines_of_rows."""
    from harness.results.matrix import agreements_of, lines_of_rows

    lines = lines_of_rows(rows, planners, damaged)
    whole = [row for row in rows if row.row.row not in damaged]
    agreements = [agreement for row in whole for agreement in agreements_of(row, planners)]
    planners[0].files.save()
    return lines, agreements


def end_with_damaged(damaged: "dict[str, Unusable]") -> None:
    """Say what of the rows that were shown is damaged, each once, and end with exit code 1; do nothing
    where nothing is."""
    from harness.common.progress import plain

    rows: dict[str, list[str]] = {}
    for row, fault in damaged.items():
        rows.setdefault(str(fault), []).append(row)
    for message, names in rows.items():
        echo(f"warning: {', '.join(names)}: {plain(message)}", err=True)
    if damaged:
        sys.exit(HarnessError.exit_code)


def load_specs(specs: tuple[Path, ...], scale: str = "full") -> "list[LoadedRow]":
    """The rows of spec files and folders, and those below specs/ that are named by their ids."""
    from harness.row.load import load_rows

    names = [str(s) for s in specs if not _is_path(s)]
    paths = tuple(s for s in specs if _is_path(s))
    rows = _scaled(load_rows(paths), scale) if paths else []
    return rows + [replace(row_named(name, scale), is_named=True) for name in names]


def _is_path(spec: Path) -> bool:
    try:
        return spec.name.endswith((".yaml", ".yml")) or len(spec.parts) != 1 or spec.exists()
    except OSError:
        return True  # too long to be any row's


def rows_to_run(specs: tuple[Path, ...], scale: str = "full") -> "list[LoadedRow]":
    """As load_specs, without what a folder has below FROM_SCRATCH, which wants to be named itself."""
    folders = [path for path in specs if FROM_SCRATCH in path.parts]
    return [
        row
        for row in load_specs(specs, scale)
        if row.is_named
        or FROM_SCRATCH not in row.path.parts
        or any(row.path.is_relative_to(folder) for folder in folders)
    ]


def _scaled(rows: "list[LoadedRow]", scale: str) -> "list[LoadedRow]":
    if scale == "full":
        return rows
    from harness.row.twin import scaled

    return [scaled(row) for row in rows]


def usable_specs() -> "Usable":
    from harness.row.load import load_usable

    return load_usable((spec_folder(),))


def tell_faulty(usable: "Usable") -> None:
    count = len(usable.faulty)
    if count:
        summary = f"{count} spec{'s have' if count > 1 else ' has'} faults"
        echo(f"warning: {summary}: `harness validate specs` lists them", err=True)


def spec_folder() -> Path:
    folder = Path("specs")
    if not folder.is_dir():
        raise InputError("there is no specs/ folder here", "Name specs, or go to the checkout.")
    return folder


def inputs_folder(inputs: Path | None) -> Path | None:
    if inputs is None:
        return Path("inputs") if Path("inputs").is_dir() else None
    from harness.artefact.links import folders_of

    absent = [folder for folder in folders_of(inputs) if not folder.is_dir()]
    if absent:
        raise InputError(
            f"the folder of given data {absent[0]} is not there",
            "Name one that is with --inputs or HARNESS_INPUTS.",
        )
    return inputs


def plan_rows(
    rows: "list[LoadedRow]",
    planner: "Planner",
    damaged: "dict[str, Damaged]",
    with_results: bool = False,
) -> "list[RowPlan]":
    """Plans; of a folder of specs, a row whose given data is absent is left out, and said; so is one
    that needs a damaged artefact, which `damaged` takes: what is wrong -> the error, which names the
    specs. with_results: also one whose results were changed, which a run says at its end."""
    from harness.artefact.store import Damaged

    plans = []
    absent: dict[str, list[str]] = {}
    ways_out: dict[str, None] = {}
    for loaded in rows:
        try:
            plan = planner.plan(loaded)
            if with_results:
                plan.check_results()
            else:
                plan.check_inputs()
            plans.append(plan)
        except HarnessError as e:
            if isinstance(e, DataAbsent) and not loaded.is_named:
                for name, way_out in _absent(loaded, planner, e).items():
                    absent.setdefault(name, []).append(loaded.row.row)
                    ways_out[way_out] = None
                continue
            fault = str(e)
            e.message = f"{_place(loaded, planner.files, e.message)}: {e.message}"
            if not isinstance(e, Damaged):
                raise
            echo(f"left out: {e.message}", err=True)
            if fault in damaged:
                e.message = f"{loaded.path}, {damaged[fault].message}"
            damaged[fault] = e
    if absent:
        from harness.common.progress import plain

        echo("left out, because their given data is absent:", err=True)
        for data, left_out in absent.items():
            echo(plain(f"  {data}: {', '.join(left_out)}"), err=True)
        hint = "\n".join(filter(None, ways_out))
        if rows and not plans:
            raise InputError("no row is left", hint)
        if hint:
            echo(hint, err=True)
    return plans


def _place(loaded: "LoadedRow", files: "Files", fault: str) -> "Mark | Path":
    """Where the given file stands of which a fault is; of another fault the spec itself."""
    from harness.artefact.keys import iter_data

    for data in iter_data(loaded.row):
        try:
            files.digest(data)
        except InputError as e:
            if e.message == fault:
                return loaded.place_of(data)
    return loaded.path


def _absent(loaded: "LoadedRow", planner: "Planner", fault: DataAbsent) -> dict[str, str]:
    """The given data of a row that is not there, as its spec names it, each with what to do about it.
    What an address brings is no reason where other data is absent, too."""
    from harness.artefact.keys import iter_data

    given: dict[str, str] = {}
    fetched: dict[str, str] = {}
    for data in iter_data(loaded.row):
        try:
            planner.files.locate(data)
        except DataAbsent as e:
            (fetched if isinstance(e, NotFetched) else given)[data.path or data.name] = e.hint
    return given or fetched or {"what another row reads whose answers it needs": fault.hint}


def row_named(name: str, scale: str = "full") -> "LoadedRow":
    """The row with this id below specs/, or that of the spec file `name`; or its twin."""
    if name.endswith((".yaml", ".yml")):
        return load_specs((Path(name),), scale)[0]
    usable = usable_specs()
    loaded = among_rows(usable, name, scale)
    if loaded is not None:
        tell_faulty(usable)
        return loaded
    raise unknown_row(name, f"there is no row {name!r} below specs/", usable)


def among_rows(usable: "Usable", name: str, scale: str) -> "LoadedRow | None":
    """The row, or its twin, that `name` means."""
    rows_by_name = {loaded.row.row: loaded for loaded in usable.rows}
    row, scale = _twin_of(name, scale, rows_by_name)
    return _scaled([rows_by_name[row]], scale)[0] if row in rows_by_name else None


def unknown_row(name: str, message: str, usable: "Usable | None") -> InputError:
    """No usable spec has the row: the faults of the others are the error, where there are any."""
    import difflib

    from harness.row.load import SpecFaults

    if usable is not None and usable.faults:
        return SpecFaults(usable.faults, f"Of the specs without faults: {message}. {ELSEWHERE}")
    ids = [row.row.row for row in usable.rows] if usable else []
    near = difflib.get_close_matches(name, ids, n=3)
    same_numbers = [row for row in ids if _without_zeros(row) == _without_zeros(name)]
    near = list(dict.fromkeys([*same_numbers, *near]))[:3]
    hint = f"Near: {', '.join(near)}. " if near else ""
    return InputError(message, hint + ELSEWHERE)


def _without_zeros(name: str) -> str:
    """`row-02` as `row-2`."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


NARROWEST = 20
"""Columns."""


PIPED = 200
"""Columns of a table without a terminal."""


def echo(text: str, err: bool = False) -> None:
    """Print lines; at a terminal those that are longer hang, as `print_hanging` has them."""
    click.echo(broken(text, err), err=err)


def broken(text: str, err: bool = False) -> str:
    """The text's lines, broken between words at a terminal's width."""
    stream = sys.stderr if err else sys.stdout
    if stream is None or not stream.isatty():
        return text
    from rich.console import Console
    from rich.text import Text

    from harness.common.hanging import NEAR, hanging

    console = Console(stderr=err)
    lines = (hanging(console, Text(line), NEAR, cut_words=False) for line in text.split("\n"))
    return "\n".join(line.plain for line in lines)


def make_console() -> "Console":
    """Of the terminal's width, or of COLUMNS, at least NARROWEST; without either no line is broken, and
    tables are PIPED wide."""
    from harness.common.progress import Output

    console = Output(emoji=False)
    told = os.environ.get("COLUMNS", "")
    is_told = told.isdecimal() and int(told) > 0
    if not console.is_terminal and not is_told:
        console.width = PIPED
        console.soft_wrap = True
    elif console.width < NARROWEST:
        console.width = NARROWEST if is_told else 80
    return console
