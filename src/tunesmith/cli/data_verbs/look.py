"""tunesmith data look: what is in a folder, before there is a project."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from tunesmith.cli.show import show
from tunesmith.core.nouns import Kind


@click.command()
@click.argument("folder", metavar="FOLDER")
@click.option(
    "--kind", type=click.Choice(get_args(Kind)), default=None, help="What the model is for. Default: guessed."
)
@click.option("--text", metavar="COLUMN", help="The column with the input text. Default: guessed.")
@click.option("--label", metavar="COLUMN", help="The column with the class or answer. Default: guessed.")
@click.option("--group", metavar="COLUMN", help="The column whose values must not straddle a split.")
@click.option("--near", type=click.FloatRange(0, 1), default=0.8, show_default=True, help="What counts as a near copy.")
@click.option("--against", multiple=True, metavar="FILE", help="Texts that must not be trained on. Repeatable.")
@click.option("--out", default="look.html", show_default=True, metavar="FILE", help="Where the page goes.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON on stdout.")
def look(
    folder: str,
    kind: Kind | None,
    text: str | None,
    label: str | None,
    group: str | None,
    near: float,
    against: tuple[str, ...],
    out: str,
    as_json: bool,
) -> None:
    """See what is in a folder and what is wrong with it: one page, and what to do about it.

    Needs no project. Formats, shapes, languages, lengths, classes, duplicates, what a naive split would leak, and
    personal data or other risks, each with its rows.
    """
    from tunesmith.cli.progress import Progress
    from tunesmith.core.canonical import write_atomic
    from tunesmith.flows.look import look as look_at

    with Progress() as progress:
        found = look_at(
            Path(folder), kind=kind, text=text, label=label, group=group, near=near,
            against=[Path(a) for a in against], progress=progress,
        )  # fmt: skip
    write_atomic(Path(out), found.page.encode("utf-8"))
    if as_json:
        show({**found.facts, "page": out}, as_json)
    else:
        show(f"{found}\n\npage:  {out}", as_json)
