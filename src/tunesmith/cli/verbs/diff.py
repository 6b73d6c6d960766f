"""tunesmith diff: two things side by side."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@common
def diff(a: str, b: str, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show what differs between two runs or artifacts.

    The beginning of an id is enough.
    """
    with opened(project, overrides) as p:
        differences = p.diff(a, b)
    show(differences, as_json)
