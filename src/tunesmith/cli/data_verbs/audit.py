"""tunesmith data audit: one step of the data."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def audit(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Look for personal data, secrets, toxicity, leaks and bias.

    Nothing is changed unless a policy under data.audit says so.
    """
    with opened(project, overrides, stoppable=True) as p:
        result = p.data.audit()
    show(result, as_json)
