"""tunesmith data label: the page on which people judge."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened


@click.command()
@click.option("--host", default=None, help="Where to listen. Default: label.host, this machine only.")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Default: label.port. 0: any free one.")
@click.option("--me", default=None, metavar="NAME", help="Your name in the judgments. Default: label.me.")
@common
def label(
    host: str | None, port: int | None, me: str | None, project: str | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Serve the page on which people label, correct and approve.

    Its overview makes personal links for others. Every judgment is on disk before the page goes on; Ctrl-C ends it.
    """
    with opened(project, overrides) as p:
        p.data.label(host=host, port=port, me=me)
