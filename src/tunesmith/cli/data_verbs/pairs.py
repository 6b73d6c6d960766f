"""tunesmith data pairs: one step of the data."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def pairs(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Make questions with answers from the passages, for approval.

    They wait on the labelling page: `tunesmith data label`.
    """
    with opened(project, overrides, stoppable=True) as p:
        result = p.data.pairs()
    show(result, as_json)
