"""tunesmith data read: one step of the data."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def read(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Read every file, list what cannot be read, and write down how.

    What is read, and how, is written into tunesmith.yaml (data.shape) and never guessed again.
    """
    with opened(project, overrides, stoppable=True) as p:
        result = p.data.read()
    show(result, as_json)
