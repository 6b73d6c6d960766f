"""tunesmith data clean: one step of the data."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def clean(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Take the texts through the named cleaning steps.

    Every change is on the record: `tunesmith data removed --step clean`.
    """
    with opened(project, overrides, stoppable=True) as p:
        result = p.data.clean()
    show(result, as_json)
