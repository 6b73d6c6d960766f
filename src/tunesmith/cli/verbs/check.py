"""tunesmith check: what is in the data?"""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def check(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show what is in the data and what is wrong with it.

    Every problem with file, line, field and what to do, and how the rows will be split.
    """
    with opened(project, overrides, stoppable=True) as p:
        result = p.check()
    show(result, as_json)
