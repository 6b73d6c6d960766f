"""tunesmith doctor: is everything still what it was?"""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def doctor(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Re-hash everything stored and explain what is wrong.

    Exit code 0: no damage. 2: damage, with what to do about it.
    """
    with opened(project, overrides) as p:
        health = p.doctor()
    show(health, as_json)
    raise SystemExit(0 if health.is_clean else 2)
