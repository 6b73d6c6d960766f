"""tunesmith adapters: list, add and remove, on the server that runs."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.argument("action", type=click.Choice(["list", "add", "remove"]), default="list")
@click.argument("names", nargs=-1, metavar="[NAME=PLACE | NAME]...")
@common
def adapters(
    action: str, names: tuple[str, ...], project: str | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """List, add or remove adapters of the running server.

    \b
      tunesmith adapters
      tunesmith adapters add triage=../triage@latest
      tunesmith adapters remove triage

    The base stays in memory. Requests under way are finished by the adapter they began with.
    """
    from tunesmith.cli.places import named_places

    if (action == "list") == bool(names):
        raise click.UsageError("list takes no name" if names else f"{action} needs a name")
    with opened(project, overrides) as p:
        if action == "add":
            for name, place in named_places(names).items():
                p.add_adapter(name, place)
        for name in names if action == "remove" else ():
            p.remove_adapter(name)
        show(p.adapters(), as_json)
