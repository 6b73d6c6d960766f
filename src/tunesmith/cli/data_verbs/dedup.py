"""tunesmith data dedup: one step of the data."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def dedup(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Leave out near copies, and rows that must not be trained on."""
    with opened(project, overrides, stoppable=True) as p:
        result = p.data.dedup()
    show(result, as_json)
