"""`harness schema`."""

import click


@click.command()
@click.option(
    "--markdown", is_flag=True, help="As tables of fields, to be read: docs/spec_fields.md."
)
def schema(markdown: bool) -> None:
    """Print the specs' JSON schema, for editors."""
    import json

    from harness.row import field_tables
    from harness.row.schema import json_schema

    if markdown:
        click.echo(field_tables.markdown(), nl=False)
    else:
        click.echo(json.dumps(json_schema(), indent=2))
