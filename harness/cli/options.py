"""Options that commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from harness.common.commands import name_volume
from harness.common.executor_names import EXECUTORS


class Count(click.IntRange):
    """An integer from 1. What is none is refused in those words."""

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(super().convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is no integer from 1", param, ctx)


SPECS = click.argument("specs", nargs=-1, required=True, type=click.Path(path_type=Path))


def _volume(context: click.Context, parameter: click.Parameter, volume: Path) -> Path:
    told = context.get_parameter_source("volume") is ParameterSource.COMMANDLINE
    name_volume(volume if told else None)
    return volume


VOLUME = click.option(
    "--volume",
    envvar="HARNESS_DATA",
    default="runs",
    show_default=True,
    type=click.Path(path_type=Path),
    callback=_volume,
    help="Folder of artefacts and transcripts, shared by all stages. Also: HARNESS_DATA.",
)


def _inputs(*names: str) -> Callable[[Any], Any]:
    return click.option(
        *names,
        "inputs",
        envvar="HARNESS_INPUTS",
        type=click.Path(path_type=Path),
        help="Folder of given data, `data:` in specs [default: inputs, if there]; several with a colon "
        "between them, where links in one lead to another. "
        "Also: HARNESS_INPUTS.",
    )


DATA, INPUTS = _inputs("--inputs", "--data"), _inputs("--inputs")


EXECUTOR = click.option(
    "--executor",
    type=click.Choice(EXECUTORS),
    default="local",
    show_default=True,
    help="Where stages run: in this Python environment, or in the pinned images, by what is there to "
    "run them. Artefacts from the images have the same keys whatever ran them.",
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
    type=click.Choice(EXECUTORS),
    callback=lambda context, parameter, value: value or "",
    help="Whose artefacts to read, all that run images being one [default: the images' where a row has "
    "them, else local].",
)


def typed(*names: str) -> list[str]:
    """Of the command's options those that stand on its command line, as another is called with them."""
    context = click.get_current_context()
    on_line = [n for n in names if context.get_parameter_source(n) is ParameterSource.COMMANDLINE]
    return [word for name in on_line for word in (f"--{name}", str(context.params[name]))]
