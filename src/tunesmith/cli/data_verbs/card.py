"""tunesmith data card: the card of the data set"""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.option("--version", default="latest", show_default=True, metavar="V", help="Of which version.")
@common
def card(version: str, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print the data set's card, in the Hugging Face format."""
    with opened(project, overrides) as p:
        text = p.data.card(version)
    show({"card": text} if as_json else text, as_json)
