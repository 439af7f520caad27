"""The command line: the group of commands, and how a fault ends one.

A command is a file: parse, call, print. Heavy imports stand inside the functions that need them.
"""

import contextlib
import os
import signal
import sys
from gc import set_threshold
from typing import TYPE_CHECKING, Any

import click

from harness import __version__
from harness.cli import (
    audit,
    cancel,
    chat,
    compare,
    doctor,
    export,
    fetch,
    gc,
    images,
    join,
    needs,
    pin,
    plan,
    replay,
    report,
    run,
    schema,
    settle,
    show,
    sim,
    status,
    submit,
    table,
    validate,
    verify,
)
from harness.cli.signals import StopOrders
from harness.cli.workspace import broken, echo
from harness.common.commands import harness, name_volume
from harness.common.encoding import tolerate_any_terminal
from harness.common.paths import DISK_FULL
from harness.errors import Faults, HarnessError, InputError, Interrupted, masked

if TYPE_CHECKING:
    from collections.abc import Iterator


ALLOCATIONS = 200_000
"""Objects made between two looks for garbage: most of what a command makes stays until it ends."""

CLOSED_PIPE = 128 + signal.SIGPIPE
"""The exit code of a command that a closed pipe ended, as shells have it."""


AGAIN = "Run the same command again to go on."


class Group(click.Group):
    """Ends every foreseeable fault in one message and the documented exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        set_threshold(ALLOCATIONS)
        tolerate_any_terminal()
        try:
            return super().main(*args, **extra)
        finally:
            name_volume(None)

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _readers_may_leave(), _device_faults_told(), _masked_usage():
            return super().make_context(*args, **extra)

    def invoke(self, context: click.Context) -> Any:
        with _readers_may_leave():
            return self._invoke(context)

    def _invoke(self, context: click.Context) -> Any:
        orders = StopOrders()
        try:
            with orders.taken(), _device_faults_told(), _masked_usage():
                return super().invoke(context)
        except (HarnessError, KeyboardInterrupt) as e:
            fault: HarnessError = Interrupted("stopped; what is finished stays.", AGAIN)
            # What a library makes of an order to stop may look like a fault of what it was loading.
            if isinstance(e, HarnessError) and not (orders.came and isinstance(e, InputError)):
                fault = e
            _complain_of(fault)
            sys.exit(fault.exit_code)
        except UnicodeEncodeError as e:
            if e.encoding.lower() == "utf-8" or e.encoding != sys.getfilesystemencoding():
                raise
            _complain(
                f"a file's name with {e.object[e.start]!r} cannot be used in this locale, "
                f"whose names are {e.encoding}",
                "Choose one of UTF-8: export LC_ALL=C.UTF-8",
            )
            sys.exit(2)


@contextlib.contextmanager
def _readers_may_leave() -> "Iterator[None]":
    """Ends as other commands do, without a word, where what reads the output has ended (`| head`)."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # as it is where whoever started the command closed it
                sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED_PIPE)


@contextlib.contextmanager
def _device_faults_told() -> "Iterator[None]":
    """A full device, for files or the output (`--help >/dev/full`), and what cannot be used."""
    try:
        yield
    except OSError as e:
        if e.errno in DISK_FULL:
            full = e.filename2 or e.filename  # of a copy the second is where it goes
            _complain(
                f"no space left on the device{f' for {full}' if full else ''}",
                f"Free some (`{harness('gc')}` lists what no spec needs) and run the same command "
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


def _complain_of(fault: HarnessError) -> None:
    """Of several faults each is told as one."""
    from harness.common.progress import plain

    if not isinstance(fault, Faults):
        _complain(fault.message, fault.hint)
        return
    for part in fault.parts:
        _complain(part.message, "")
    for text in filter(None, (fault.count, fault.hint)):
        echo(plain(text), err=True)


def _complain(message: str, hint: str) -> None:
    from harness.common.progress import plain

    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(broken(f"error: {plain(message)}", err=True).removeprefix("error: "), err=True)
    if hint:
        echo(plain(hint), err=True)


COMMANDS = (
    validate.validate,
    plan.plan,
    run.run,
    needs.needs,
    fetch.fetch,
    replay.replay,
    table.table,
    verify.verify,
    settle.settle,
    compare.compare,
    audit.audit,
    report.report,
    show.show,
    chat.chat,
    export.export,
    pin.pin,
    join.join,
    submit.submit,
    status.status,
    cancel.cancel,
    images.images,
    gc.gc,
    doctor.doctor,
    sim.sim,
    schema.schema,
)
"""In the order of work, in which --help lists them."""


@click.group(cls=Group, commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="harness")
def main() -> None:
    """Reproduce rows of instruction-tuning results tables.

    A row is one YAML file below specs/. Its stages (gen, train, answer, judge) leave artefacts on a
    volume, each under a key of everything that decided its content, and `harness table` fills the
    results matrix from them.

    Exit codes: 0 done, 1 a run failed (of `audit`: there are findings; of `needs`: something is
    missing), 2 the input is faulty or asks for what is not there, 130 stopped, 141 what reads the
    output has ended. Of `verify`: 3 not reproduced, 4 open.
    """
