"""tunesmith data diff: two versions side by side"""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.argument("a")
@click.argument("b", default="latest")
@common
def diff(a: str, b: str, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show what differs between two versions, row by row.

    A and B are names such as v1, `latest`, or the start of a data set's id.
    """
    with opened(project, overrides) as p:
        result = p.data.diff(a, b)
    show(result, as_json)
