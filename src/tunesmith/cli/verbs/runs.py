"""tunesmith runs: what was executed."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.option("--stage", default=None, metavar="NAME", help="Only runs of this stage: check, prepare, sft, answer, ...")
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="At most so many."
)
@common
def runs(stage: str | None, limit: int, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """List what was executed, newest first."""
    with opened(project, overrides) as p:
        found = p.runs(stage=stage, limit=limit)
    show(found, as_json)
