"""tunesmith report: the page of a run."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.option("--open", "in_browser", is_flag=True, help="Open the page in the browser.")
@common
def report(in_browser: bool, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Write the page of the latest run and print where it is."""
    with opened(project, overrides) as p:
        page = p.report()
    show({"path": str(page.path), **page.facts} if as_json else page, as_json)
    if in_browser:
        click.launch(page.path.resolve().as_uri())
