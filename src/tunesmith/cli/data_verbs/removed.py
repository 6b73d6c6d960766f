"""tunesmith data removed: every row that left or was altered"""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.option("--reason", default=None, metavar="R", help="Only these: duplicate, no_label, altered, ...")
@click.option("--step", default=None, metavar="S", help="Only what this step did: check, clean, dedup, ...")
@click.option("--version", default="latest", show_default=True, metavar="V", help="Of which version.")
@common
def removed(
    reason: str | None, step: str | None, version: str, project: str | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """List every row that left or was altered: why, by which step, before and after.

    The key in front of each is what `tunesmith data restore` takes.
    """
    with opened(project, overrides) as p:
        result = p.data.removed(reason, step, version)
    show(result, as_json)
