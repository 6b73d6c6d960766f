"""What `tunesmith forget` prints: what went, what was built from it, and what only the user can do."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith.ledger.forget import Forgotten

SHOWN = 12
PAGES = ("report.html", "look.html")


def words(done: Forgotten) -> str:
    lines = [*_erased(done), *_reached(done), *_by_hand(done)]
    if done.earlier and done.nothing:
        lines.append("forgotten before:")
        lines += [
            f"  {e.at[:10]}  {e.rows:,} rows, {e.files:,} files{f'  ({e.why})' if e.why else ''}" for e in done.earlier
        ]
    return "\n".join([*lines, f"next:  {_next(done)}"])


def _erased(done: Forgotten) -> list[str]:
    if done.nothing:
        return ["nothing that this project keeps holds it"]
    whole = sum(f.erased for f in done.files)
    verb = "would erase" if done.dry_run else "erased"
    parts = [f"{done.rows:,} {_s('row', done.rows)}"]
    parts += [f"parts of {n:,} stored {_s('file', n)}" for n in [len(done.files) - whole] if n]
    parts += [f"{whole:,} {_s('file', whole)} as a whole"] if whole else []
    parts += [f"the words of {done.facts:,} {_s('record', done.facts)}"] if done.facts else []
    parts += [f"the content of {done.traces:,} served {_s('request', done.traces)}"] if done.traces else []
    parts += [f"the state of {done.work:,} unfinished {_s('stage', done.work)}"] if done.work else []
    lines = [f"{verb} {', '.join(parts)}"]
    if done.places:
        more = f" and {len(done.places) - SHOWN} more (--json)" if len(done.places) > SHOWN else ""
        lines.append(f"  rows: {', '.join(done.places[:SHOWN])}{more}")
    counts: Counter[str] = Counter()
    for file in done.files:
        counts[f"{'/'.join(file.kinds)}: {file.path}{' (whole file)' if file.erased else ''}"] += file.count
    lines += [f"  {n:>6,}  {what}" for what, n in counts.most_common(SHOWN)]
    return [*lines, f"  and in {len(counts) - SHOWN:,} more files (--json)"] if len(counts) > SHOWN else lines


def _reached(done: Forgotten) -> list[str]:
    if not done.reached:
        return []
    lines = ["built from it (weights are not edited: make them anew to be rid of it):"]
    for r in done.reached:
        names = f"  {', '.join(r.aliases)} → it" if r.aliases else ""
        lines.append(f"  {r.kind:<10} {r.id[:12]}  {r.how}{names}")
    return lines


def _by_hand(done: Forgotten) -> list[str]:
    lines: list[str] = []
    own = [o for o in done.outside if not o.file.endswith(PAGES)]
    pages = [o for o in done.outside if o.file.endswith(PAGES)]
    if own:
        lines += ["your own files still hold it; Tunesmith does not change them:", *(f"  {o}" for o in own)]
    if pages:
        lines += ["pages that hold it; make them anew, or remove them:", *(f"  {o}" for o in pages)]
    if done.unread:
        lines += ["stored files that could not be looked into:", *(f"  {u}" for u in done.unread)]
    if done.names:
        lines += ["names of stored files hold it, and names are kept:", *(f"  {n}" for n in done.names)]
    if done.running:
        lines += ["a stage began meanwhile and may write it again; run this command once more when it ends:"]
        lines += [f"  {r}" for r in done.running]
    lines.append("not reached: backups, exported copies, and what others were given")
    return lines


def _next(done: Forgotten) -> str:
    if done.dry_run and not done.nothing:
        return "the same command without --dry-run"
    if any(not o.unread for o in done.outside):
        return "take it out of the files above, then tunesmith run"
    if any(r.kind != "dataset" and r.how == "trained on it" for r in done.reached):
        return "tunesmith run   (trains without it)"
    return "tunesmith doctor"


def _s(word: str, n: int) -> str:
    return word if n == 1 else f"{word}s"
