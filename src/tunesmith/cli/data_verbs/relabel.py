"""tunesmith data relabel: one step of the data."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def relabel(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Apply label variants and judgments; list probable errors."""
    with opened(project, overrides, stoppable=True) as p:
        result = p.data.relabel()
    show(result, as_json)
