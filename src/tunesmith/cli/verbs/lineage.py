"""tunesmith lineage: where it came from."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.argument("name", metavar="ID")
@common
def lineage(name: str, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show what a thing was made from.

    And what was made from it. ID may be an alias, or the beginning of an id.
    """
    with opened(project, overrides) as p:
        found = p.lineage(name)
    show(found, as_json)
