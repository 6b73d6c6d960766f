"""tunesmith prepare: split, and count tokens"""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def prepare(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Split the examples and count their tokens.

    Rows of one group never straddle a split, and the test set is sealed by its hash.
    """
    with opened(project, overrides, stoppable=True) as p:
        result = p.prepare()
    show(result, as_json)
