"""Examples that others made, from a local file or a hub data set: the recipe `import`.

A row that cannot be used is dropped by a rule and listed; what is wrong with the file as a whole is
an error. Rows without an id column are called import_0, import_1 and so on, by their number in what
was read, so that an example is found again in its file.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from harness.artefact.call import StageCall
from harness.data import layouts, tables
from harness.data.conversations import MARKS
from harness.data.dataset import DROPPED, Lineage
from harness.data.dropped import Tally
from harness.data.layouts import TableLayout, Unusable
from harness.data.tables import Table, TableRow
from harness.errors import InputError
from harness.gen.recipe import RecipeResult
from harness.gen.recipes.importing import ImportGen
from harness.spec.hub import Sample

RECIPE = "import"


def make(call: StageCall, gen: ImportGen) -> RecipeResult:
    """The usable rows of the file (`gen.file`) or the data set (`call.inputs["hub"]`), or a sample.

    Raises:
        InputError: it cannot be read, its columns fit no layout, two rows have the same id, or the
            sample is larger than what there is.
    """
    return import_table(_read(call, gen), gen)


def import_table(table: Table, gen: ImportGen) -> RecipeResult:
    """The usable rows of a table, or a sample. Raises InputError as `make`."""
    layout = layouts.find(table, gen.columns, gen.kind)
    layout, notes = layouts.settle(layout, gen.columns, table)
    if "id" in layout.columns:
        _check_ids(table, layout)
    total = len(table.rows)
    before: list[Tally] = []
    if gen.sample is not None and gen.sample.by == "datasets":
        table, before = _shuffled(table, gen.sample)
    result = _take(table, layout, gen)
    result.filters[:0] = before
    result.notes = notes + result.notes
    result.used = {
        **table.used,
        "rows": total,
        "layout": layout.name,
        "columns": layout.columns,
        "columns_unused": [c for c in table.columns if c not in layout.columns.values()],
    }
    if gen.sample is not None:
        result.seeds = {"gen": gen.sample.seed}
        if gen.sample.by == "random" and result.examples:
            _draw(result, gen.sample)
    return result


def _read(call: StageCall, gen: ImportGen) -> Table:
    if gen.hub is not None:
        return tables.read_hub(Path(call.inputs["hub"]), gen.hub, call.folder, wanted(gen))
    assert gen.file is not None
    return tables.read_files(Path(gen.file.path), wanted(gen))


def wanted(gen: ImportGen) -> set[str]:
    """The columns that can be of use."""
    return {
        *gen.columns.model_dump(exclude_none=True).values(),
        *chain(*layouts.USUAL.values(), *layouts.OWN_FIELDS.values()),
        layouts.UNTRAINED,
        *MARKS,
    }


def _take(table: Table, layout: TableLayout, gen: ImportGen) -> RecipeResult:
    rows = Tally(RECIPE, "rows")
    result = RecipeResult([], [rows])
    several = unanswered = 0
    for number, row in enumerate(table.rows):
        name = f"{RECIPE}_{number}"
        try:
            if "id" in layout.columns:
                name = layouts.as_id(layout.cell(row.fields, "id"))
            draft = layouts.read_row(layout, row.fields, gen.turns)
        except Unusable as e:
            rows.drop(e.rule, id=name, **row.at, **_content(layout, row))
            continue
        several += draft.has_several
        unanswered += draft.is_unanswered
        result.examples.append(draft.example.after(Lineage(RECIPE, RECIPE), id=name))
    rows.kept = len(result.examples)
    result.counts = {"of_several_turns": several, "unanswered_last_turns": unanswered}
    result.notes = list(_notes(gen, rows, several, unanswered))
    return result


def _notes(gen: ImportGen, rows: Tally, several: int, unanswered: int) -> Iterator[str]:
    if rows.dropped:
        yield drop_note(rows)
    if several and gen.turns in ("first", "last"):
        yield (
            f"{several} of {rows.kept} conversations have several turns, of which the {gen.turns} "
            f"exchange alone was taken (turns: {gen.turns})"
        )
    if unanswered:
        yield f"of {unanswered} conversations a last question without an answer was left out"
    if rows.dropped["same_first_answer"]:
        yield (
            f"{rows.dropped['same_first_answer']} rows were dropped because chosen and rejected "
            "differ only in a later turn; turns: last or turns: history keeps them"
        )


def drop_note(rows: Tally) -> str:
    """What the run says of dropped rows."""
    return f"{rows.share()} were dropped ({rows.in_words()}); {DROPPED} lists them"


def _check_ids(table: Table, layout: TableLayout) -> None:
    rows_by_id: dict[str, TableRow] = {}
    for row in table.rows:
        try:
            name = layouts.as_id(layout.cell(row.fields, "id"))
        except Unusable:
            continue
        first = rows_by_id.setdefault(name, row)
        if first is not row:
            raise InputError(
                f"{row.place}: the id {name!r} is also that of {first.place}",
                "Make the ids unique, or name another column in gen.columns.id.",
            )


def _content(layout: TableLayout, row: TableRow) -> Mapping[str, object]:
    return {
        field: _plain(row.fields[column])
        for field, column in layout.columns.items()
        if field != "id" and column in row.fields
    }


def _plain(value: Any) -> Any:
    """What JSON can hold: a Parquet file may also hold dates and bytes."""
    if value is None or isinstance(value, str):
        return value
    return json.loads(json.dumps(value, default=str))


def _shuffled(table: Table, sample: Sample) -> tuple[Table, list[Tally]]:
    """The table's first rows once all are shuffled, whether they can be used or not."""
    if sample.k > len(table.rows):
        raise InputError(
            f"gen.sample asks for {sample.k} rows, and {table.name} has {len(table.rows)}",
            "Lower gen.sample.k, or leave the sample out.",
        )
    numbers = sample.draw(len(table.rows))
    drawn, step = set(numbers), Tally("sample", "rows", sample.k, Counter(not_drawn=0))
    for number, row in enumerate(table.rows):
        if number not in drawn:
            step.drop("not_drawn", **row.at)
    return replace(table, rows=[table.rows[number] for number in numbers]), [step]


def _draw(result: RecipeResult, sample: Sample) -> None:
    """Keep a sample of the usable rows, in the file's order."""
    usable = result.examples
    if sample.k > len(usable):
        [rows] = result.filters
        raise InputError(
            f"gen.sample asks for {sample.k} examples, and {len(usable)} of the {rows.proposed} rows "
            f"can be used (dropped: {rows.in_words()})",
            "Lower gen.sample.k, or leave the sample out.",
        )
    numbers = sample.draw(len(usable))
    drawn = set(numbers)
    step = Tally("sample", "examples", sample.k, Counter(not_drawn=0))
    for number, example in enumerate(usable):
        if number not in drawn:
            step.drop("not_drawn", id=example.id)
    result.filters.append(step)
    result.examples = [usable[number] for number in numbers]
