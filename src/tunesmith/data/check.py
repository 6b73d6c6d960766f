"""Stage check: read every row, keep the usable ones as examples, and say why for each of the others.

    source, made -> rows.jsonl (kept, in file order), left_out.jsonl (with reasons), check.json (what is in the data)

Streaming: of each kept row only its hashes and its place stay in memory. Contradictions to be left
out take a second pass, because the first row of a contradiction was kept before it was one.
"""

from __future__ import annotations

from tunesmith.core.canonical import canonical_json, write_atomic
from tunesmith.core.stage import Workspace
from tunesmith.data.findings import report_of
from tunesmith.data.sieve import Sieve
from tunesmith.data.sources import Detected, detect, find_shapes, find_sources
from tunesmith.data.stages import CheckInputs, CheckOutputs, CheckSpec
from tunesmith.data.write import LinesWriter

__all__ = ["Detected", "check", "detect"]

EVERY = 2_000  # records between progress reports


def check(spec: CheckSpec, inputs: CheckInputs, work: Workspace) -> CheckOutputs:
    """Raises one DataError with every problem of every file, unless the policies leave such rows out."""
    sources, unread = find_sources(spec, inputs)
    shapes = find_shapes(spec, sources)
    folder = work.scratch / "examples"
    folder.mkdir(parents=True, exist_ok=True)
    facts = [source.fresh() for source in sources]
    total = sum(f.bytes for f in facts)
    done = 0
    sieve = Sieve(spec)
    with LinesWriter(folder / "left_out.jsonl") as left_out:
        with LinesWriter(folder / "rows.jsonl") as rows:
            for source, shape, fact in zip(sources, shapes, facts, strict=True):
                for record in source.read(fact):
                    sieve.take(record, source, shape, rows, left_out)
                    if sieve.tally.read % EVERY == 0:
                        work.stop_if_asked()
                        work.progress(min(done + fact.read_bytes, total), total, "check", rows=sieve.tally.read)
                done += fact.bytes
        if sieve.contradicted and spec.contradictions == "leave_out":
            sieve.leave_contradictions_out(folder / "rows.jsonl", left_out)
    sieve.refuse()
    report = report_of(spec, shapes, facts, unread, sieve.tally)
    write_atomic(folder / "check.json", canonical_json(report) + b"\n")
    work.summarize(read=report["read"], kept=report["kept"], left_out=report["left_out"])
    work.progress(total, total, "check", rows=sieve.tally.read)
    return CheckOutputs(examples=folder)
