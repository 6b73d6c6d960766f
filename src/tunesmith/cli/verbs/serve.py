"""tunesmith serve: the model behind an OpenAI-compatible API."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened


@click.command()
@click.option("--host", default=None, help="Where to listen. Default: serve.host, this machine only.")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Default: serve.port. 0: any free one.")
@click.option("--model", "name", default=None, metavar="NAME", help="An alias, or a bundle's id. Default: prod.")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="NAME=PLACE",
    help="Another project's folder, FOLDER@BUNDLE or a bundle, served with this one on one base. Repeatable.",
)
@common
def serve(
    host: str | None,
    port: int | None,
    name: str | None,
    adapters: tuple[str, ...],
    project: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Serve it over an OpenAI-compatible API.

    Ctrl-C or SIGTERM ends it once the answers under way are sent.
    """
    from tunesmith.cli.places import named_places

    with opened(project, overrides) as p:
        p.serve(model=name, host=host, port=port, adapters=named_places(adapters))
