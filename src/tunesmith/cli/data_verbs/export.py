"""tunesmith data export: the data set in another format"""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.option(
    "--to", required=True, metavar="FORMAT", help="openai, sharegpt, alpaca, hf, parquet, labelstudio, argilla."
)
@click.option("--out", required=True, metavar="DIR", help="The folder to make.")
@click.option("--version", default="latest", show_default=True, metavar="V", help="Which version.")
@click.option(
    "--unfit",
    type=click.Choice(["refuse", "leave_out"]),
    default="refuse",
    show_default=True,
    help="Rows that the format cannot hold.",
)
@common
def export(
    to: str, out: str, version: str, unfit: str, project: str | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Write the data set in another tool's format, one file a split."""
    with opened(project, overrides) as p:
        result = p.data.export(to, out, version=version, unfit=unfit)
    show(result, as_json)
