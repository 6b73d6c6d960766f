"""tunesmith show: one thing, whole."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show as show_result


@click.command()
@click.argument("name", metavar="ID")
@common
def show(name: str, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show one run, artifact or alias.

    The beginning of an id is enough.
    """
    with opened(project, overrides) as p:
        found = p.show(name)
    show_result(found, as_json)
