"""tunesmith baselines: what do cheaper arms reach?"""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def baselines(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Answer the test set with every arm but the tuned one."""
    with opened(project, overrides, stoppable=True) as p:
        result = p.baselines()
    show(result, as_json)
