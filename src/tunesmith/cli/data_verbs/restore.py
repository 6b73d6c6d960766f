"""tunesmith data restore: take a removal or a change back"""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--undo", is_flag=True, help="No longer restore them.")
@common
def restore(keys: tuple[str, ...], undo: bool, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Take the removal or the change of rows back.

    KEY is what `tunesmith data removed` shows. The decision is kept, and the next run makes the data anew.
    """
    with opened(project, overrides) as p:
        result = p.data.restore(*keys, undo=undo)
    show(result, as_json)
