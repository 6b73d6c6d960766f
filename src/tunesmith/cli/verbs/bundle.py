"""tunesmith bundle: pack what ships"""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.option("--checkpoint", default=None, metavar="ID", help="In place of the trained one, such as what merge made.")
@common
def bundle(checkpoint: str | None, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Pack what ships: weights, renderer, card, verdict."""
    with opened(project, overrides, stoppable=True) as p:
        result = p.bundle(checkpoint)
    show(result, as_json)
