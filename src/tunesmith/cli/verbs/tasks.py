"""tunesmith tasks: several projects' models by one command."""

from __future__ import annotations

import click

from tunesmith.cli.show import only_results_on_stdout, show


@click.command()
@click.argument("action", type=click.Choice(["train", "check"]))
@click.argument("projects", nargs=-1, required=True, metavar="PROJECT...")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of all. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def tasks(action: str, projects: tuple[str, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Train several projects' models, one after another, to be served on one base.

    Each is trained as `tunesmith train` does it by itself, and running the command again goes on where it stopped.
    `check` says beforehand what would keep their adapters off one base.
    """
    from tunesmith.api import Project, tasks_apart, train_tasks
    from tunesmith.cli.progress import Progress
    from tunesmith.cli.stopping import stop_on_signals

    with only_results_on_stdout(as_json), stop_on_signals(True) as stop, Progress() as progress:
        opened = [Project.open(p, overrides, progress=progress, stop=stop) for p in projects]
        result = train_tasks(opened) if action == "train" else tasks_apart(opened)
    show(result or "nothing: their adapters can share one base", as_json)
