"""tunesmith lr: a learning rate, by a short sweep."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.option(
    "--low", type=click.FloatRange(min=0, min_open=True), default=1e-6, show_default=True, help="The first rate."
)
@click.option(
    "--high", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True, help="The last one."
)
@click.option("--steps", type=click.IntRange(8, 1000), default=40, show_default=True, help="Optimizer steps.")
@common
def lr(low: float, high: float, steps: int, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Find a learning rate by a short sweep over rising ones.

    The weights are thrown away; the curve is kept. It is a start, to be judged on validation.
    """
    with opened(project, overrides, stoppable=True) as p:
        result = p.lr(low=low, high=high, steps=steps)
    show(result, as_json)
