"""tunesmith data log: the versions of the data set"""

from __future__ import annotations

from typing import Any

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@common
def log(project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """List the versions of the data set, oldest first."""
    with opened(project, overrides) as p:
        found = p.data.log()
    if as_json:
        show(found, as_json)
    else:
        show([_row(v) for v in found], as_json)


def _row(version: Any) -> dict[str, Any]:
    return {
        "version": version.name,
        "made": version.made[:19].replace("T", " "),
        **{split: version.rows.get(split, 0) for split in ("train", "validation", "test")},
        "left out": sum(version.left_out.values()),
        "sealed test": version.seal[:12],
        "id": version.dataset[:12],
    }
