"""Result folders of alpaca_eval: annotations.json, leaderboard.csv, model_outputs.json, in whatever
layout they stand below a path.

Each model under each annotator is one result. Its line in a leaderboard is looked for in its own
folder, in those above, and in ANNOTATOR_leaderboard.csv anywhere below the path; its outputs in its
own folder and in those above.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from harness.artefact.keys import file_digest
from harness.audit.checks.judged import (
    FINDINGS,
    check_dropped,
    check_length,
    check_position,
    measure,
)
from harness.audit.checks.published import check_line, check_published
from harness.audit.checks.repeats import check_judged_twice
from harness.audit.checks.replies import check_replies
from harness.audit.checks.texts import check_texts
from harness.audit.model import EXAMPLES, Material, Reader, Result, compare, guarded_result, short
from harness.audit.parse import contents
from harness.audit.parse.alpaca_names import (
    FOLDER,
    ROWS,
    AnnotationsFolder,
    ModelNames,
    check_judge,
    check_model,
    disagreement,
    letters,
    place_of,
)
from harness.audit.parse.alpaca_rows import (
    Annotations,
    ModelOutput,
    annotations_in,
    read_outputs,
    split,
)
from harness.audit.parse.decoding_settings import settings_near
from harness.audit.parse.files import (
    AuditSource,
    JsonObject,
    Unreadable,
    objects_in,
    read_json,
    read_rows,
    up_to,
)
from harness.audit.parse.judged_pairs import judged_outputs, material_of
from harness.audit.parse.leaderboards import (
    ALPACA_EVAL_PROMPTS,
    NEARLY_ALL,
    LeaderboardLine,
    check_lines,
    check_unreadable,
    expected_by,
    published_of,
    read_lines_of,
    recomputed,
)
from harness.audit.parse.readme import only_lines_of
from harness.audit.parse.reference import Reference, read_reference
from harness.judge.scores import bounds

KIND = "alpaca_eval"
ANNOTATIONS, OUTPUTS = "annotations.json", "model_outputs.json"
ALPACA_EVAL_SETS = frozenset({"helpful_base", "koala", "oasst", "selfinstruct", "vicuna"})
"""What AlpacaEval's rows have as `dataset`."""
FEW_OUTPUTS = 2
"""A published avg_length over so many outputs fewer is told as a remark: upstream leaves out empty
ones, and the score does not depend on it."""
FEW_LINES = 3
"""A leaderboard with more lines than this, and no annotations, is one result."""


@dataclass
class _Outputs:
    path: Path
    rows: list[ModelOutput]
    used: bool = False

    @property
    def is_usual(self) -> bool:
        return self.path.name.lower() == OUTPUTS

    @property
    def generators(self) -> set[str]:
        return {row.generator for row in self.rows}

    @property
    def by_prompt(self) -> dict[str, str]:
        return {row.prompt: row.text for row in self.rows}


@dataclass
class _Inventory:
    """All that is below one path. Lines of leaderboards that a result took are in `used_lines`."""

    source: AuditSource
    reference: Reference | None
    lines: dict[Path, list[LeaderboardLine]] = field(default_factory=dict)
    outputs: list[_Outputs] = field(default_factory=list)
    judged: list[tuple[Path, list[Annotations]]] = field(default_factory=list)
    """Files of annotations, and the sets in each."""
    used_lines: set[tuple[Path, str]] = field(default_factory=set)
    unreadable: dict[Path, str] = field(default_factory=dict)
    """Folder -> why its annotations.json is none."""

    @cached_property
    def annotators(self) -> frozenset[str]:
        """The judges that any row names."""
        names = {annotations.annotator for _, sets in self.judged for annotations in sets}
        return frozenset(names - {""})

    @cached_property
    def names(self) -> ModelNames:
        names = ModelNames(
            boards=[{letters(line.name) for line in lines} for lines in self.lines.values()]
        )
        names.models.update(*names.boards)
        for outputs in self.outputs:
            names.models.update(map(letters, outputs.generators))
        for path, sets in self.judged:
            run = place_of(path.parent, self.annotators).run
            names.runs.setdefault(letters(run.name), set()).add(run)
            names.models.update(letters(annotations.model) for annotations in sets)
        names.models.discard("")
        return names


def find(source: AuditSource) -> list[Result]:
    inventory = _Inventory(source, read_reference(source.reference))
    for path in source.files:
        name = path.name.lower()
        is_given = path in source.paths and "win_rate" in contents.content_of(source, path).keys
        if name == "leaderboard.csv" or name.endswith("_leaderboard.csv") or is_given:
            lines = source.read(read_lines_of, path)
            if lines is not None:
                inventory.lines[path] = lines
    usual = source.files_named(OUTPUTS)
    for path in [*usual, *contents.of_kind(source, contents.OUTPUTS, OUTPUTS)]:
        rows = source.read(read_rows if path in usual else _read_unusual, path)
        if rows and all("output" in row and "instruction" in row for row in rows):
            inventory.outputs.append(_Outputs(path, read_outputs(rows)))
            if path not in usual:
                source.claim(path)
        elif rows == []:
            source.skip(path, "it is an empty list")
    results = []
    usual = source.files_named(ANNOTATIONS)
    for path in [*usual, *contents.of_kind(source, contents.ANNOTATIONS, ANNOTATIONS)]:
        try:
            values = (read_json if path in usual else contents.read_values)(path)
        except Unreadable as e:
            inventory.unreadable[path.parent] = str(e)
            source.skip(path, str(e))
            continue
        rows = annotations_in(values)
        if rows:
            inventory.judged.append((path, split(rows, path.parent.name)))
            source.claim(path)
        elif values == []:
            inventory.unreadable[path.parent] = "it is an empty list"
            source.skip(path, "it is an empty list")
    for path, sets in inventory.judged:
        for annotations in sets:
            name = _name_of(path, annotations, len(sets) > 1)
            make = partial(_judged, inventory, path, annotations, len(sets) > 1)
            results.append(guarded_result(name, KIND, make))
    return results + _boards_alone(inventory) + _outputs_alone(inventory)


def _read_unusual(path: Path) -> list[JsonObject]:
    """Outputs of their own name, whose last line may be unfinished."""
    return objects_in(contents.read_values(path))


def _judged(inventory: _Inventory, path: Path, annotations: Annotations, several: bool) -> Result:
    result = Result(_name_of(path, annotations, several), KIND)
    place = place_of(path.parent, inventory.annotators)
    line = _line_of(inventory, path.parent, annotations, several, place)
    stored = _outputs_of(inventory, path.parent, annotations, place)
    result.material = material_of(
        annotations.rows,
        judge=annotations.annotator,
        baseline=annotations.baseline,
        model=annotations.model,
        run=_run_of((stored.path if stored else path).parent, annotations.annotator),
        settings=settings_near(path.parent, inventory.source),
        files={path.name: file_digest(path)},
        raws=[(r.pair.instruction, r.reply) for r in annotations.stored if r.raw is not None],
        times=[row.seconds for row in annotations.stored if row.seconds is not None],
    )
    expected, why = _expected(inventory, annotations, stored, path.name)
    measure(result, annotations.rows, expected)
    judged_lengths = [n for row in annotations.rows if (n := row.length) is not None]
    stored_rows = stored.rows if stored else []
    stored_lengths = [len(row.text) for row in stored_rows]
    result.metrics["avg_length"] = _mean_length(judged_lengths or stored_lengths)
    if line is not None:
        result.published.update(published_of(line))
        remark = _length_remark(result, judged_lengths, stored_lengths)
        length = result.published.pop("avg_length") if remark else None
        result.material.line = _only_line(inventory, line)
        compare(result, line.decimals)
        if remark:
            result.published["avg_length"] = length
            result.notes.append(remark)
        check_lines(result, [line])
        check_unreadable(result, [line])
    check_replies(result, annotations)
    check_judge(result, annotations, place)
    check_published(result, line.path.name if line else "")
    for readme_line in only_lines_of(path.parent, [annotations.model], inventory.source):
        check_line(result, readme_line)
    judged_prompts = {row.instruction for row in annotations.rows}
    unjudged = [row.unjudged() for row in stored_rows if row.prompt not in judged_prompts]
    check_dropped(result, annotations.rows, [o.text for o in unjudged], why)
    check_judged_twice(result, annotations.rows, Counter(row.prompt for row in stored_rows))
    is_other = stored is not None and _check_outputs(result, annotations, stored, place)
    if not several and not is_other:
        outputs = next(iter(stored.generators)) if stored else ""
        check_model(result, annotations, place, line.name if line else "", outputs, inventory.names)
    is_run = place.judge or letters(place.run.name) in inventory.names.models
    is_noted = any(annotations.model in note for note in result.notes)
    if (several or stored is None) and is_run and not is_noted:
        result.notes += _other_name(annotations.model, place.run, inventory.source.root)
    check_position(result, annotations.rows, annotations.order_from)
    check_length(result, annotations.rows)
    cut = {row.prompt: row.is_cut for row in stored_rows}
    judged_texts = judged_outputs(annotations.rows, {p for p, is_cut in cut.items() if is_cut})
    check_texts(result, [*judged_texts, *unjudged])
    return result


def _other_name(model: str, folder: Path, root: Path) -> list[str]:
    """A note where no folder below the root has a model's name."""
    places = [p for p in (folder, *folder.parents) if root in p.parents]
    names = [(letters(p.name), letters(model)) for p in places]
    if not places or not model or any(a in b or b in a for a, b in names):
        return []
    return [f"these are of {short(model, 80)}, and the folder is called {short(folder.name, 80)}"]


def _name_of(path: Path, annotations: Annotations, several: bool) -> str:
    name = path.parent if path.name.lower() == ANNOTATIONS else path
    return f"{name}#{annotations.model}" if several else str(name)


def _run_of(folder: Path, annotator: str) -> str:
    """The folder of a run: MODEL of MODEL/ANNOTATOR."""
    is_judge = folder.name.lower() == annotator.lower()
    return str((folder.parent if is_judge else folder).resolve())


def _expected(
    inventory: _Inventory, annotations: Annotations, stored: _Outputs | None, name: str
) -> tuple[int, str]:
    """How many prompts there were to judge, and how one knows."""
    reference = inventory.reference
    if reference is not None and reference.fits(row.instruction for row in annotations.rows):
        return reference.prompts, f"{reference.path.name} has {reference.prompts}"
    ways = [(len(annotations.rows), f"{name} has {len(annotations.rows)}")]
    if stored is not None:
        ways.append((len(stored.rows), f"{stored.path.name} has {len(stored.rows)}"))
    sets = {row.dataset for row in annotations.stored}
    if len(annotations.rows) >= NEARLY_ALL and sets <= ALPACA_EVAL_SETS and len(sets) > 1:
        ways.append((ALPACA_EVAL_PROMPTS, f"AlpacaEval's set has {ALPACA_EVAL_PROMPTS}"))
    # The first of the largest: the nearest source.
    return max(ways, key=lambda way: way[0])


def _line_of(
    inventory: _Inventory,
    folder: Path,
    annotations: Annotations,
    several: bool,
    place: AnnotationsFolder,
) -> LeaderboardLine | None:
    """The leaderboard's line of a result: the nearest leaderboard that has it, under the run's own name
    or the model's."""
    above = [p.name for p in (place.run, *place.run.parents) if p.name]
    names = [annotations.model, *above] if several else [*above[:1], annotations.model, *above[1:]]
    beside = [
        (path, above == folder and not several)
        for above in up_to(folder, inventory.source.root)
        for path in inventory.lines
        if path.parent == above and path.name.lower() == "leaderboard.csv"
    ]
    of_judge = f"{annotations.annotator}_leaderboard.csv".lower()
    elsewhere = [(path, False) for path in inventory.lines if path.name.lower() == of_judge]
    for path, is_own in beside + elsewhere:
        lines = inventory.lines[path]
        line = _first_named(lines, names)
        if line is None and is_own and len(lines) == 1:
            line = lines[0]
        if line is not None:
            inventory.used_lines.add((path, line.name))
            return line
    return None


def _only_line(inventory: _Inventory, line: LeaderboardLine) -> dict[str, float] | None:
    """Its figures, where the leaderboard has no other: those of published models stand in many."""
    return line.figures if len(inventory.lines[line.path]) == 1 else None


def _first_named(lines: Sequence[LeaderboardLine], names: Sequence[str]) -> LeaderboardLine | None:
    by_name = {line.name: line for line in lines}
    return next((by_name[name] for name in names if name in by_name), None)


def _outputs_of(
    inventory: _Inventory, folder: Path, annotations: Annotations, place: AnnotationsFolder
) -> _Outputs | None:
    """The nearest outputs of the model; else those that lie where its own should lie."""
    baseline = {row.instruction: row.baseline for row in annotations.rows}
    judged = {row.instruction: row.output for row in annotations.rows}
    for outputs in inventory.outputs:
        # Those of the baseline that lie among the judgements are no result by themselves.
        outputs.used |= not outputs.is_usual and annotations.baseline in outputs.generators
    for above in up_to(folder, inventory.source.root):
        here = [o for o in inventory.outputs if o.path.parent == above]
        of_model = [o for o in here if annotations.model in o.generators]
        nearest = max(of_model, key=lambda o: _shared(o, judged), default=None)
        if nearest is None and above in (folder, place.run):
            for outputs in here:
                outputs.used |= _is_baseline(outputs, annotations, baseline)
            nearest = next((o for o in here if o.is_usual and not o.used), None)
        if nearest is not None:
            nearest.used = True
            rows = [row for row in nearest.rows if row.generator == annotations.model]
            return _Outputs(nearest.path, rows or nearest.rows)
    return None


def _is_baseline(
    outputs: _Outputs, annotations: Annotations, baseline: Mapping[str, str | None]
) -> bool:
    """Whether they are what the model was judged against."""
    if annotations.baseline in outputs.generators:
        return True
    shared = sum(row.prompt in baseline for row in outputs.rows)
    return 2 * _shared(outputs, baseline) > shared > 0


def _shared(outputs: _Outputs, texts: Mapping[str, str | None]) -> int:
    """How many outputs are these texts."""
    return sum(texts.get(row.prompt) == row.output for row in outputs.rows)


def _mean_length(lengths: Sequence[int]) -> int | None:
    """alpaca_eval's avg_length."""
    return int(sum(lengths) / len(lengths)) if lengths else None


def _length_remark(
    result: Result, judged_lengths: Sequence[int], stored_lengths: Sequence[int]
) -> str:
    """Takes the metric over whichever outputs the published avg_length is of: those judged, those
    stored, either without the empty ones. Where it is of an output or two fewer, says so; else "".
    """
    published = result.published.get("avg_length")
    if published is None:
        return ""
    both = [lengths for lengths in (judged_lengths, stored_lengths) if lengths]
    if any(published == _mean_length(lengths) for lengths in both):
        result.metrics["avg_length"] = published
        return ""
    for lengths in both:
        filled, mean = [n for n in lengths if n], _mean_length(lengths)
        if published == _mean_length(filled):
            return (
                f"avg_length {published:g} is over the {len(filled)} outputs that are not empty; over "
                f"all {len(lengths)}, {len(lengths) - len(filled)} of them empty, it is {mean}"
            )
    for lengths in both:
        ordered = sorted(lengths)
        for few in range(1, FEW_OUTPUTS + 1):
            low, high = _mean_length(ordered[:-few]), _mean_length(ordered[few:])
            if low is not None and high is not None and low <= published <= high:
                return (
                    f"avg_length {published:g} is that of {few} fewer than the {len(lengths)} outputs "
                    f"stored here, over which it is {_mean_length(lengths)}"
                )
    return ""


def _check_outputs(
    result: Result, annotations: Annotations, stored: _Outputs, place: AnnotationsFolder
) -> bool:
    """count_mismatch: the judged outputs are not the stored ones. Whether they are another model's."""
    times = Counter(row.prompt for row in stored.rows)
    unknown = [
        p for p in dict.fromkeys(row.instruction for row in annotations.rows) if p not in times
    ]
    # Upstream strips outputs before they are judged.
    texts = {prompt: output.strip() for prompt, output in stored.by_prompt.items()}
    once = [
        (row.instruction, row.output.strip())
        for row in annotations.rows
        if row.output is not None and times[row.instruction] == 1
    ]
    other = [prompt for prompt, output in once if texts[prompt] != output]
    if not unknown and not other:
        return False
    name = stored.path.name
    what = [f"{len(unknown)} judged prompts are not in {name}"] if unknown else []
    what += [f"{len(other)} judged outputs are not those in {name}"] if other else []
    is_other = annotations.model not in stored.generators and 2 * len(other) > len(once)
    message = (
        f"{ANNOTATIONS} has {len(annotations.rows)} rows, {name} {len(stored.rows)}: "
        f"{'; '.join(what)}"
    )
    names = {ROWS: annotations.model, name: ", ".join(sorted(stored.generators))}
    if is_other:
        if place.run == stored.path.parent and letters(place.run.name) in map(
            letters, names.values()
        ):
            names[FOLDER] = place.run.name
        message += f"; {disagreement(names)}"
    result.mismatch(
        message,
        {
            "annotations": len(annotations.rows),
            "outputs": len(stored.rows),
            "unknown_prompts": len(unknown),
            "other_outputs": len(other),
            **({"names": names} if is_other else {}),
            "examples": [short(prompt) for prompt in [*unknown, *other][:EXAMPLES]],
        },
    )
    return is_other


def _boards_alone(inventory: _Inventory) -> list[Result]:
    """Lines of leaderboards of which nothing else is stored."""
    results = []
    for path, lines in inventory.lines.items():
        rest = [line for line in lines if (path, line.name) not in inventory.used_lines]
        if len(rest) > FEW_LINES or (rest and path.name.lower() != "leaderboard.csv"):
            results.append(_whole_board(path, lines, rest))
            continue
        for line in rest:
            folder = str(path.parent) if len(lines) == 1 else f"{path.parent}#{line.name}"
            result = Result(folder, KIND, published=published_of(line))
            figures = recomputed(line)
            result.metrics.update({n: v for n, v in figures.items() if v is not None})
            rate, judged = figures.get("win_rate"), figures.get("n_judged")
            if rate is not None and judged is not None:
                expected, why = expected_by(line) or (int(judged), "")
                if inventory.reference is not None:
                    expected = inventory.reference.prompts
                    why = f"{inventory.reference.path.name} has {expected}"
                expected = max(expected, int(judged))
                result.metrics["n_expected"] = expected
                result.metrics |= bounds(rate * judged, int(judged), expected, 0, 100)
                check_dropped(result, [], [], why)
            compare(result, line.decimals)
            check_lines(result, [line])
            check_unreadable(result, [line])
            check_published(result, path.name)
            check_length(result, [])
            why_not = inventory.unreadable.get(path.parent)
            if why_not:
                result.mismatch(
                    f"{ANNOTATIONS} cannot be read ({why_not}): what is published cannot be known",
                    {"file": ANNOTATIONS, "why": why_not},
                )
            result.notes.append(
                "no annotations could be read: the figures were only held against the line's own "
                "counts"
            )
            outputs = next((o for o in inventory.outputs if o.path.parent == path.parent), None)
            if outputs is not None and not outputs.used and len(lines) == 1:
                outputs.used = True
                check_texts(result, [row.unjudged() for row in outputs.rows])
                result.material.outputs = outputs.by_prompt
            result.material.model, result.material.run = line.name, str(path.parent.resolve())
            result.material.line = _only_line(inventory, line)
            results.append(result)
    return results


def _whole_board(
    path: Path, lines: Sequence[LeaderboardLine], rest: Sequence[LeaderboardLine]
) -> Result:
    """A leaderboard of many models, as one result."""
    result = Result(str(path), "leaderboard")
    result.metrics = {"lines": len(lines), "lines_without_annotations": len(rest)}
    check_lines(result, list(rest))
    result.matches = not result.findings
    check_unreadable(result, rest)
    of_set = [line for line in rest if expected_by(line)]
    few = [line for line in of_set if line.figures["n_judged"] < ALPACA_EVAL_PROMPTS]
    if few:
        judged = {line.name: line.figures["n_judged"] for line in few}
        least = min(judged.values())
        result.add(
            "dropped_rows",
            "warning" if 1 - least / ALPACA_EVAL_PROMPTS >= 0.01 else "info",
            f"{len(few)} of {len(rest)} lines are over fewer than {ALPACA_EVAL_PROMPTS} prompts, the "
            f"fewest over {least:g}",
            {"lines": judged, "expected": ALPACA_EVAL_PROMPTS},
        )
    result.notes.append(
        "of its lines without annotations only what the counts say could be recomputed; length bias "
        "was not looked for"
    )
    return result


def _outputs_alone(inventory: _Inventory) -> list[Result]:
    results = []
    for outputs in inventory.outputs:
        if outputs.used:
            continue
        folder = outputs.path.parent
        result = Result(str(folder if outputs.is_usual else outputs.path), "model_outputs")
        texts = [row.unjudged() for row in outputs.rows]
        length = int(sum(len(o.text) for o in texts) / len(texts))
        result.metrics = {"n_outputs": len(texts), "avg_length": length}
        result.material = Material(
            outputs=outputs.by_prompt,
            model=next(iter(outputs.generators)),
            run=str(folder.resolve()),
            settings=settings_near(folder, inventory.source),
            files={outputs.path.name: file_digest(outputs.path)},
        )
        reference = inventory.reference
        if (
            reference is not None
            and len(texts) < reference.prompts
            and reference.fits(o.instruction for o in texts)
        ):
            result.add(
                "dropped_rows",
                "warning",
                f"{len(texts)} of the {reference.prompts} prompts have an output",
                {"outputs": len(texts), "expected": reference.prompts},
            )
        check_texts(result, texts)
        models = Counter(row.generator for row in outputs.rows)
        if len(models) > 1:
            model_counts = ", ".join(
                f"{short(name, 80)} ({count})" for name, count in models.most_common(3)
            )
            result.notes.append(f"the outputs are of {len(models)} models: {model_counts}")
        elif outputs.is_usual:
            result.notes += _other_name(next(iter(models)), folder, inventory.source.root)
        results.append(result)
    return results


READER = Reader(
    "alpaca_eval",
    looks_for="alpaca_eval's annotations.json, leaderboard.csv and model_outputs.json",
    findings=FINDINGS,
    find=find,
    comparable=True,
)
