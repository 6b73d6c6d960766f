"""tunesmith tokens: what the model sees of one example."""

from __future__ import annotations

import os
import sys

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.argument("place", metavar="FILE:LINE")
@common
def tokens(place: str, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show one example's tokens and which are trained.

    Trained tokens are coloured on a terminal and stand between ‹ and › elsewhere.
    """
    with opened(project, overrides) as p:
        view = p.tokens(place)
    if as_json or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        show(view, as_json)
    else:
        click.echo(view.text(colour=True))  # it has made control characters visible itself
