"""tunesmith forget: erase content, and say what was built from it."""

from __future__ import annotations

import sys
from typing import Any

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.option(
    "--row", "rows", multiple=True, metavar="ID", help="A row, by its id or the key that `data removed` shows."
)
@click.option("--place", "places", multiple=True, metavar="FILE:LINE", help="A row, by its place in the raw file.")
@click.option("--text", "texts", multiple=True, metavar="TEXT", help="A name, a mail address: whole words. Repeatable.")
@click.option("--why", default="", metavar="TEXT", help="Kept on the record; say nothing personal here.")
@click.option("--dry-run", is_flag=True, help="List what would be erased, and erase nothing.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@common
def forget(
    rows: tuple[str, ...],
    places: tuple[str, ...],
    texts: tuple[str, ...],
    why: str,
    dry_run: bool,
    yes: bool,
    project: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Erase a row's or a person's content everywhere.

    Leaves a tombstone, so that it does not come back with new data, and lists every data set, model and bundle that
    was built from it, and the lines of your own files that still hold it. It cannot be undone.
    """
    from tunesmith.core.errors import InputError  # late: `--help` stays instant

    with opened(project, overrides) as p:
        said: dict[str, Any] = {"rows": rows, "places": places, "texts": texts, "why": why}
        if not (dry_run or yes):
            found = p.forget(**said, dry_run=True)
            show(str(found), False)
            if not sys.stdin.isatty() or not click.confirm("Erase this for good?", err=True):
                raise InputError("nothing was erased", fix="say --yes to erase without being asked")
        result = p.forget(**said, dry_run=dry_run)
    show(result, as_json)
