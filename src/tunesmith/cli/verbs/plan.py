"""tunesmith plan: what will a run do and cost?"""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.option("--gpu", "gpus", multiple=True, metavar="NAME", help="Plan for this GPU too. Repeatable.")
@click.option("--methods", is_flag=True, help="Rank every method by whether it fits, here and on the GPUs.")
@click.option("--no-probe", is_flag=True, help="Count and compute only: take no real steps.")
@common
def plan(
    gpus: tuple[str, ...],
    methods: bool,
    no_probe: bool,
    project: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Forecast steps, memory by part, time, energy, money and disk.

    Three real steps at the longest batch check the count; they are remembered, and the next plan is instant. Stages
    that are cached already are marked. Checks and splits the data first, which takes seconds and is kept.
    A plan that does not fit says so, and what would; it is a forecast, so the exit code is 0.
    """
    with opened(project, overrides, stoppable=True) as p:
        result = p.plan_methods(gpus, probe=not no_probe) if methods else p.plan(gpus, probe=not no_probe)
    show(result, as_json)
