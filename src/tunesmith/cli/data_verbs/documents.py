"""tunesmith data documents: one step of the data."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def documents(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Read manuals, glossaries and FAQs to passages."""
    with opened(project, overrides, stoppable=True) as p:
        result = p.data.documents()
    show(result, as_json)
