"""What every verb has: --project, --set, --json, an open project, progress and a way to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from tunesmith.api import Project

F = TypeVar("F", bound=Callable[..., Any])


def common(function: F) -> F:
    """The options `project`, `overrides` and `as_json`."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Override a setting, such as train.lr=1e-4. Repeatable; the last one wins.",
        ),
        click.option(
            "--project",
            metavar="DIR",
            default=None,
            help="The project's folder. Default: the nearest one from here upwards.",
        ),
    ):
        function = option(function)
    return function


@contextmanager
def opened(project: str | None, overrides: Sequence[str], *, stoppable: bool = False) -> Iterator[Project]:
    """The project, with live progress on stderr. `stoppable`: the verb saves its state when asked to stop."""
    from tunesmith.api import Project  # late: `--help` stays instant
    from tunesmith.cli.progress import Progress
    from tunesmith.cli.show import only_results_on_stdout
    from tunesmith.cli.stopping import stop_on_signals

    context = click.get_current_context(silent=True)
    as_json = context is not None and bool(context.params.get("as_json"))
    with only_results_on_stdout(as_json), stop_on_signals(stoppable) as stop, Progress() as progress:
        yield Project.open(project, overrides, progress=progress, stop=stop)
