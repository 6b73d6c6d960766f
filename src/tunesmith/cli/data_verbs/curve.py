"""tunesmith data curve: what more rows would be worth."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.option("--repeats", type=click.IntRange(3, 50), default=4, show_default=True, help="Random orders of the rows.")
@click.option("--sizes", default="", metavar="N,N,...", help="Train the model itself on so many rows each time.")
@common
def curve(repeats: int, sizes: str, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Forecast what more rows would be worth, by a cheap model's learning curve.

    With --sizes the model itself is trained, once on each number of rows: slower, and without a forecast.
    """
    with opened(project, overrides, stoppable=True) as p:
        at = [int(n) for n in sizes.split(",") if n.strip().isdecimal()]
        if sizes and len(at) != len(sizes.split(",")):
            raise click.UsageError(f"--sizes takes whole numbers with commas between them, not {sizes!r}")
        result = p.data.curve(sizes=at) if at else p.data.curve(repeats=repeats)
    show(result.facts if as_json else result, as_json)
