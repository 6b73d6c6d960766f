"""tunesmith schema: for editors."""

from __future__ import annotations

import click

from tunesmith.cli.common import common
from tunesmith.cli.show import write_json


@click.command()
@common
def schema(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print the JSON Schema of tunesmith.yaml.

    Editors complete and check the file with it; `tunesmith init` puts a copy where the file's first
    line points. Needs no project.
    """
    from tunesmith.core.settings import json_schema

    write_json(json_schema())
