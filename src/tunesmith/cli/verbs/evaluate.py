"""tunesmith evaluate: how good is it?"""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.option("--checkpoint", default=None, metavar="ID", help="In place of the trained one, such as what merge made.")
@common
def evaluate(checkpoint: str | None, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Compare the tuned model with the baselines.

    All arms answer the same sealed test set; every look at it is counted.
    """
    with opened(project, overrides, stoppable=True) as p:
        result = p.evaluate(checkpoint)
    show(result, as_json)
