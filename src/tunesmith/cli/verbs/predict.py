"""tunesmith predict: answers for a whole file."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.argument("file")
@click.option("--out", required=True, metavar="FILE", help="The CSV file to write, or to go on with.")
@click.option("--model", "name", default="prod", metavar="NAME", help="An alias, or a bundle's id. Default: prod.")
@common
def predict(file: str, out: str, name: str, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Answer every row of a file.

    Label and confidence are written beside the columns of FILE (CSV, TSV or JSONL). After Ctrl-C or
    a kill the same command goes on where it was.
    """
    with opened(project, overrides, stoppable=True) as p:
        predicted = p.predict(file, out, model=name)
    show(predicted, as_json)
