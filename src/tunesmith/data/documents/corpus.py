"""Stage corpus: passages to texts that a model for the domain is trained on, as check reads them.

passages -> made/corpus.jsonl {"text", "group", "source"}, made/corpus.json
"""

from __future__ import annotations

from collections import Counter

from tunesmith.core.canonical import canonical_json, read_lines, write_atomic
from tunesmith.core.errors import DataError
from tunesmith.core.stage import Workspace
from tunesmith.data.documents.records import Passage, Source
from tunesmith.data.documents.stages import CorpusInputs, CorpusOutputs, CorpusSpec
from tunesmith.data.write import LinesWriter

EVERY = 1_000  # passages between looks at the stop signal


def corpus(spec: CorpusSpec, inputs: CorpusInputs, work: Workspace) -> CorpusOutputs:
    """Raises DataError if no passage is of a kind asked for."""
    folder = work.scratch / "made"
    folder.mkdir(parents=True, exist_ok=True)
    used: Counter[str] = Counter()
    unused: Counter[str] = Counter()
    with LinesWriter(folder / "corpus.jsonl") as out:
        for i, passage in enumerate(read_lines(inputs.passages / "passages.jsonl", Passage)):
            if i % EVERY == 0:
                work.stop_if_asked()
            if spec.kinds and passage.kind not in spec.kinds:
                unused[passage.kind] += 1
                continue
            used[passage.kind] += 1
            out.write(
                {
                    "text": with_headings(passage) if spec.headings else passage.text,
                    "group": group_of(passage.file, passage.heading, spec.group),
                    "source": source_of(passage),
                }
            )
    if not used:
        kinds = ", ".join(spec.kinds)
        raise DataError(f"no passage is of kind {kinds}", where="documents", fix=f"there are: {', '.join(unused)}")
    facts = {"texts": used.total(), "kinds": dict(sorted(used.items())), "unused": dict(sorted(unused.items()))}
    write_atomic(folder / "corpus.json", canonical_json(facts) + b"\n")
    work.summarize(**facts)
    return CorpusOutputs(made=folder)


def with_headings(passage: Passage) -> str:
    """The headings on one line, outermost first, an empty line, the text."""
    return f"{' > '.join(passage.heading)}\n\n{passage.text}" if passage.heading else passage.text


def source_of(passage: Passage) -> Source:
    return Source(passage=passage.id, file=passage.file, page=passage.page, heading=passage.heading)


def group_of(file: str, heading: tuple[str, ...], by: str) -> str:
    """What a split must not part: a document, or what stands under one top heading of it."""
    return f"{file}#{heading[0]}" if by == "heading" and heading else file
