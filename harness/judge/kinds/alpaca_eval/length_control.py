"""AlpacaEval's length-controlled win rate, from files that are there instead of from the hub.

The package predicts what each preference would be if both outputs were of one length: a logistic
regression on the tanh of the standardised difference in length and on the instruction's difficulty
(arXiv 2404.04475). It is fitted with annotations of gamed baselines, which the package fetches as
`df_gamed.csv`, and which knows AlpacaEval's instructions by their number alone.
"""

import csv
import hashlib
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.artefact.keys import file_digest
from harness.artefact.manifest import MetricValue
from harness.common.text_files import ENCODING
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.judge.pairwise import Annotation

GAMED = "df_gamed.csv"
COLUMNS = (
    "model",
    "index",
    "instruction_difficulty",
    "preference",
    "std_delta_len",
    "not_gamed_baseline",
)
"""What the package reads of that file."""
GAMED_DIGEST = "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d"
"""That file's sha256, as public code has it: with other annotations it is another win rate."""
AS_IT_IS = "take the file whole and as it is on the hub"
INSTRUCTIONS = 805
DIGEST = "19335c314b25f2550db9138cbbc7c1219ac28967bd6062cd323182405afbd7f1"
"""sha256 of AlpacaEval's instructions in their order, each followed by a zero byte."""


def check(folder: Path, instructions: Sequence[str]) -> None:
    """Raises InputError where the win rate is not defined, or its file cannot be used."""
    if digest(instructions) != DIGEST:
        how = (
            "other instructions or another order"
            if len(instructions) == INSTRUCTIONS
            else f"{len(instructions)} instructions"
        )
        raise InputError(
            f"the length-controlled win rate is defined for AlpacaEval's own {INSTRUCTIONS} "
            f"instructions in their order alone, and these prompts are {how}",
            hint="take AlpacaEval's own prompt file whole, or leave out judge.length_control",
        )
    path = folder if folder.is_file() else folder / GAMED
    try:
        with path.open(encoding=ENCODING, newline="") as file:
            table = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (table.fieldnames or [])]
            first = [] if missing else list(itertools.islice(table, INSTRUCTIONS))
    except FileNotFoundError:
        raise InputError(
            f"judge.length_control names no folder with {GAMED}: {folder}",
            hint="it is a file of the data set tatsu-lab/alpaca_eval on the hub",
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise InputError(f"{path} cannot be read as a CSV table: {e}") from None
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}")
    # The package finds an instruction's difficulty by the number of the line.
    usable = [
        _number(row["index"]) == number and _number(row["instruction_difficulty"]) is not None
        for number, row in enumerate(first)
    ]
    if sum(usable) < INSTRUCTIONS:
        row = usable.index(False) if False in usable else len(usable)
        raise InputError(
            f"row {row} of {path} does not give the difficulty of the instruction number {row}",
            hint=AS_IT_IS,
        )
    if (actual := file_digest(path)) != GAMED_DIGEST:
        raise InputError(
            f"{path} is not AlpacaEval's: its sha256 is {actual}, AlpacaEval's {GAMED_DIGEST}",
            hint=AS_IT_IS,
        )


def digest(instructions: Sequence[str]) -> str:
    sha256 = hashlib.sha256()
    for instruction in instructions:
        sha256.update(instruction.encode("utf-8", "surrogatepass") + b"\0")
    return sha256.hexdigest()


def metric(folder: Path, rows: "list[Annotation]", expected: int) -> MetricValue:
    """The metric from annotations in the instructions' order; None as a preference is left out of the
    fit. It has no bounds: what an unjudged prompt would do to the fit is not known."""
    from harness.judge.kinds.alpaca_eval.package import length_controlled

    figures = length_controlled(rows, folder)
    return MetricValue(
        value=float(figures["length_controlled_winrate"]),
        standard_error=float(figures["lc_standard_error"]),
        judged=int(figures["n_total"]),
        expected=expected,
    )


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
