"""How a command ends when it does not end well: what is said, where, and with which exit code.

The message goes to stderr; with --json, {"error": [{"where", "what", "fix"}]} to stdout as well, so
that a program reads one stream. A traceback is shown for our own mistakes only, and then in a file.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from tunesmith.core.errors import InputError, Problem, Stopped, StorageError, TunesmithError

BUG = 70  # EX_SOFTWARE; not 1, which says that a goal was not met
DEBUG = "TUNESMITH_DEBUG"
SYSTEM = {  # what the operating system may refuse anywhere, and what to do
    errno.ENOSPC: "free space and run the same command again",
    errno.EDQUOT: "free space and run the same command again",
    errno.EROFS: "choose a writable folder",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EIO: "check the disk",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "check the path",
}


def ended(error: BaseException, verb: str, as_json: bool) -> int:
    """Say why a command did not end well; returns its exit code."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        say([Problem(where="", what="stopped")], as_json)
        return Stopped.exit_code
    if isinstance(error, click.ClickException):
        return usage(error, as_json)
    assert isinstance(error, Exception)
    return failed(error, verb, as_json)


def usage(error: click.ClickException, as_json: bool) -> int:
    """The command line itself is wrong."""
    ctx = getattr(error, "ctx", None)
    fix = f"{ctx.command_path} --help" if ctx else "tunesmith --help"
    say([Problem(where="", what=error.format_message(), fix=fix)], as_json)
    return 2


def failed(error: Exception, verb: str, as_json: bool) -> int:
    if isinstance(error, TunesmithError):
        say(error.problems, as_json)
        if shows_tracebacks():
            traceback.print_exception(error)
        return error.exit_code
    if isinstance(error, OSError) and error.errno in SYSTEM:
        what = error.strerror or str(error)
        problem = Problem(where=str(error.filename or ""), what=what, fix=SYSTEM[error.errno])
        return failed(StorageError(problem), verb, as_json)
    if isinstance(error, MemoryError):
        fix = "set a smaller exec.micro_batch_tokens, or a smaller model"
        return failed(InputError(Problem(where="", what="there is not enough memory", fix=fix)), verb, as_json)
    return _bug(error, verb, as_json)


def _bug(error: Exception, verb: str, as_json: bool) -> int:
    written = _write_traceback(error, verb)
    what = f"this is a bug in Tunesmith: {type(error).__name__}: {error}"
    fix = f"report it with {written}" if written else f"run it again with {DEBUG}=1 and report what it prints"
    say([Problem(where="", what=what, fix=fix)], as_json)
    if shows_tracebacks():
        traceback.print_exception(error)
    return BUG


def _write_traceback(error: Exception, verb: str) -> Path | None:
    """No arguments are written: they may hold what a person asked."""
    from tunesmith import __version__

    state = next((f / ".tunesmith" for f in (Path.cwd(), *Path.cwd().parents) if (f / ".tunesmith").is_dir()), None)
    name = f"crash-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.txt"
    text = f"tunesmith {__version__} {verb}, Python {sys.version}\n\n" + "".join(traceback.format_exception(error))
    for folder in (state, Path(tempfile.gettempdir())):
        if folder is None:
            continue
        try:
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue  # a full or read-only disk may be why we are here
        return folder / name
    return None


def shows_tracebacks() -> bool:
    return os.environ.get(DEBUG, "") not in ("", "0")


def say(problems: Sequence[Problem], as_json: bool) -> None:
    from tunesmith.cli.show import harmless, write_json

    for problem in problems:
        click.echo(harmless(str(problem)), err=True)
    if as_json:
        write_json({"error": [{"where": p.where, "what": p.what, "fix": p.fix} for p in problems]})
