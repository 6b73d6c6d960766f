"""tunesmith matrix: which way to train, by measurement."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.option("--plan", "plan_only", is_flag=True, help="Say which cells there are, which are done, and how long.")
@click.option("--choose", metavar="CELL", help="Take this cell, in place of the rule.")
@click.option("--no-look", is_flag=True, help="Compare only: do not go on to the test set with the chosen cell.")
@click.option("--so-far", is_flag=True, help="Compare what is done; train nothing and choose nothing.")
@common
def matrix(
    plan_only: bool,
    choose: str | None,
    no_look: bool,
    so_far: bool,
    project: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Try every method on a subset, some on all rows, choose one.

    Cells are compared on the validation rows, with intervals and paired differences; the chosen one is taken
    through evaluate and gate, which is one look at the test set. Cells are kept: after Ctrl-C or a kill
    the same command goes on where it was. A cell that fails is recorded, and the others go on.

    Exit code 0: done, and the chosen one passes. 1: it fails its goals. 3: not enough evidence. 4: a cell failed.
    """
    if plan_only and (choose or no_look or so_far):
        raise click.UsageError("--plan does nothing that --choose, --no-look or --so-far could change: give it alone")
    with opened(project, overrides, stoppable=True) as p:
        if plan_only:
            plan = p.matrix_plan()
            show(plan, as_json)
            return
        result = p.matrix(choose=choose, look=not no_look, so_far=so_far)
    show(result, as_json)
    raise SystemExit(result.exit_code)
