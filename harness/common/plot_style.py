"""How every plot looks, whatever the user's own settings are: the same figures, the same bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "text.parse_math": False,
}


@contextmanager
def plot(path: Path) -> Iterator[Any]:
    """A figure to draw on, saved as this PNG file at the end."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The user's own matplotlibrc would change the bytes.
    built_in = {k: v for k, v in matplotlib.rcParamsDefault.items() if k != "backend"}
    with matplotlib.rc_context({**built_in, **STYLE}):
        figure = Figure(dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        # Without its own name and version in the file.
        figure.savefig(path, format="png", metadata={"Software": None})
