"""`harness sim`."""

import click

from harness.errors import InputError


@click.command()
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
