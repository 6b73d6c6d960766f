"""tunesmith plan: what will a run do and cost?"""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def plan(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Forecast stages, steps, memory, minutes and disk.

    Stages that are cached already are marked. Checks and splits the data first, which takes seconds
    and is kept.
    """
    with opened(project, overrides, stoppable=True) as p:
        result = p.plan()
    show(result, as_json)
