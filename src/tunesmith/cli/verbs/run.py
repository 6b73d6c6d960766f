"""tunesmith run: from the raw file to a gated bundle."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="A proof of concept on a seeded subset of N rows."
)
@common
def run(limit: int | None, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Take every stage from the raw file to a gated bundle.

    What is done already is not done again: a second run takes a moment, and after Ctrl-C or a kill
    it goes on where it was. Only a pass moves the alias prod.

    Exit code 0: pass. 1: fail. 3: not enough evidence.
    """
    with opened(project, overrides, stoppable=True) as p:
        result = p.run(limit=limit)
    show(result, as_json)
    raise SystemExit(result.exit_code)
