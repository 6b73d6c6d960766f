"""tunesmith data split: one step of the data."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def split(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Split, seal the test set, and prove that no near copy straddles."""
    with opened(project, overrides, stoppable=True) as p:
        result = p.data.split()
    show(result, as_json)
