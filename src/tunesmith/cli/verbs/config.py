"""tunesmith config: every setting and where it was said."""

from __future__ import annotations

import json

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def config(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show every setting and where it was said.

    The origin is a line of tunesmith.yaml or of the file it extends, --set, or default.
    """
    with opened(project, overrides) as p:
        resolved = p.config()
    if as_json:
        show({key: {"value": value, "origin": origin} for key, value, origin in resolved}, as_json)
        return
    said = [(f"{key}: {json.dumps(value, ensure_ascii=False)}", origin) for key, value, origin in resolved]
    width = min(60, max(len(text) for text, _ in said))
    show("\n".join(f"{text:<{width}}  # {origin}" for text, origin in said), as_json)
