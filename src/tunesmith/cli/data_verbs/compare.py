"""tunesmith data compare: does the data look like real inputs?"""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.argument("sample", metavar="FILE")
@click.option("--text", metavar="COLUMN", help="The column with the input. Default: that of task.text.")
@common
def compare(sample: str, text: str | None, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Compare the data with a sample of real inputs, and show the words that differ.

    FILE holds one text a line, or is CSV or JSON lines.
    """
    with opened(project, overrides, stoppable=True) as p:
        result = p.data.compare(sample, text=text)
    show(result.facts if as_json else result, as_json)
