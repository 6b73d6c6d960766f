"""tunesmith gate: may this model ship?"""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.option("--checkpoint", default=None, metavar="ID", help="In place of the trained one, such as what merge made.")
@common
def gate(checkpoint: str | None, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Judge the tuned model against the goals.

    Exit code 0: pass. 1: fail. 3: not enough evidence.
    """
    with opened(project, overrides, stoppable=True) as p:
        verdict = p.gate(checkpoint)
    show(verdict, as_json)
    raise SystemExit(verdict.exit_code)
