"""tunesmith init: a project from data files and a goal."""

from __future__ import annotations

from typing import get_args

import click

from tunesmith.cli.common import common
from tunesmith.cli.show import show
from tunesmith.core.nouns import Kind


@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(get_args(Kind)), required=True, help="What the model is for.")
@click.option("--data", multiple=True, required=True, metavar="FILE", help="A data file, copied in. Repeatable.")
@click.option("--text", metavar="COLUMN", help="The column with the input text.")
@click.option("--label", metavar="COLUMN", help="The column with the class, summary or answer.")
@click.option("--group", metavar="COLUMN", help="The column whose values must not straddle a split.")
@click.option("--model", metavar="MODEL", help="A catalogue name, a local folder, or a hub name.")
@click.option("--goal", "goals", multiple=True, metavar="GOAL", help='Such as "macro_f1 >= 0.7". Repeatable.')
@click.option("--audience", default="", metavar="TEXT", help="For whom the answers are.")
@click.option("--tone", default="", metavar="TEXT", help="How the answers sound.")
@common
def init(
    name: str,
    kind: Kind,
    data: tuple[str, ...],
    text: str | None,
    label: str | None,
    group: str | None,
    model: str | None,
    goals: tuple[str, ...],
    audience: str,
    tone: str,
    project: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make a project from data files and a goal.

    NAME is the folder to make; the data files are copied into it, and tunesmith.yaml is written.
    Without --goal the goal is to beat every cheaper arm.
    """
    if project is not None or overrides:
        raise click.UsageError("init makes a new project: it takes neither --project nor --set")
    from tunesmith.api import Project

    made = Project.create(
        name, data=list(data), kind=kind, text=text, label=label, group=group, model=model,
        goals=list(goals), audience=audience, tone=tone,
    )  # fmt: skip
    written = made.file.path.read_text(encoding="utf-8")
    if as_json:
        settings = {key: value for key, value, origin in made.config() if origin != "default"}
        show({"project": str(made.root), "file": str(made.file.path), "settings": settings}, as_json)
    else:
        show(f"{made.file.path}\n\n{written}\nnext:  cd {name} && tunesmith check", as_json)
