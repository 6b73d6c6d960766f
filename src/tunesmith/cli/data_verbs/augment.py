"""tunesmith data augment: one step of the data."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def augment(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Add rows made from training rows, and measure what they bring."""
    with opened(project, overrides, stoppable=True) as p:
        result = p.data.augment()
    show(result, as_json)
