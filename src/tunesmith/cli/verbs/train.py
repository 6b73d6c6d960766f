"""tunesmith train: teach the model"""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def train(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Train the model.

    Stop it with Ctrl-C: the state is saved, and the same command goes on from there.
    """
    with opened(project, overrides, stoppable=True) as p:
        result = p.train()
    show(result, as_json)
