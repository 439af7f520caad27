"""`harness schema`."""

import click


@click.command()
def schema() -> None:
    """Print the specs' JSON schema, for editors."""
    import json

    from harness.row.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
