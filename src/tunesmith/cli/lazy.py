"""Groups of verbs that are imported when they are used, so that `--help` stays instant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """`sections`: title -> verb -> its sentence, in the order of the journey."""

    def __init__(
        self,
        *args: Any,
        sections: Mapping[str, Mapping[str, str]],
        load: Callable[[str], click.Command],
        parent_name: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._sections = sections
        self._load = load
        self._parent_name = parent_name

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for section in self._sections.values() for name in section)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.names)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return self._load(name) if name in self.names else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and name not in self.names and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, self.names, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}?" if near else f"`{self._parent_name} --help` lists the verbs."
            raise click.UsageError(f"{name!r} is not a verb. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, verbs in self._sections.items():
            with formatter.section(title):
                formatter.write_dl(list(verbs.items()))
