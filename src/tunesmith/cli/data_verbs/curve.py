"""tunesmith data curve: what more rows would be worth."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.option("--repeats", type=click.IntRange(3, 50), default=4, show_default=True, help="Random orders of the rows.")
@common
def curve(repeats: int, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Forecast what more rows would be worth, by a cheap model's learning curve."""
    with opened(project, overrides, stoppable=True) as p:
        result = p.data.curve(repeats=repeats)
    show(result.facts if as_json else result, as_json)
