"""What the planner's steps run on: the longest examples, in the longest of their wordings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.train.data import SPEC
from tunesmith.train.cost import probe
from tunesmith.train.recipes import sft


def test_the_longest_batch_is_the_longest_rows_in_their_longest_wording(dataset: Path, tiny_llama: Path) -> None:
    spec = replace(SPEC, templates=(("careful", "Read this text with care, twice: {text}"),))
    question = {"dataset": str(dataset)}
    longest, typical = probe.batches(spec, question, tiny_llama)
    every = sft.documents_of(spec, tiny_llama, sft.rows_of(spec, dataset))
    sizes = sorted((max(len(d.ids) for d in worded) for worded in every), reverse=True)
    assert [len(d.ids) for d in longest] == sizes[: spec.global_batch]
    plain, _ = probe.batches(SPEC, question, tiny_llama)
    assert sum(len(d.ids) for d in longest) > sum(len(d.ids) for d in plain)
    assert [len(batch) for batch in typical] == [spec.global_batch] * probe.STEPS
    served, careful = ({worded[i].ids for worded in every} for i in (0, 1))
    drawn = {d.ids for batch in typical for d in batch}
    assert drawn & served and drawn & careful and drawn <= served | careful
