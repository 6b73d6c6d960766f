"""tunesmith backup: a copy that can be trusted."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.argument("destination", metavar="DEST")
@common
def backup(destination: str, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Write a consistent copy of what the project has learnt.

    DEST is a new folder. Other processes may go on writing meanwhile.
    """
    with opened(project, overrides) as p:
        made = p.backup(destination)
    show(made, as_json)
