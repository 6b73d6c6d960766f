"""The command line: one file a verb, imported when it is used, so that `--help` is instant.

In come arguments; out go one call of tunesmith.api.Project, its answer on stdout and its progress on
stderr. Read app.py first (the verbs and how errors end), then any file in verbs/.
"""

from __future__ import annotations


def main() -> None:
    """The `tunesmith` command."""
    from tunesmith.cli.app import run

    raise SystemExit(run())
