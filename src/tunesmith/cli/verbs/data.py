"""tunesmith data: a group of verbs of its own, each imported when it is used."""

from __future__ import annotations

import importlib

import click

from tunesmith.cli.lazy import LazyGroup

VERBS: dict[str, dict[str, str]] = {
    "Before there is a project": {
        "look": "See what is in a folder and what is wrong with it.",
    },
    "Its steps, each also part of `run` where its settings ask for it": {
        "documents": "Read manuals, glossaries and FAQs to passages.",
        "pairs": "Make questions with answers from the passages.",
        "read": "Read every file, and write down how.",
        "clean": "Take the texts through named cleaning steps.",
        "dedup": "Leave out near copies and forbidden texts.",
        "audit": "Look for personal data, secrets, toxicity, leaks, bias.",
        "relabel": "Apply label variants and judgments; list probable errors.",
        "split": "Split, seal the test set, prove that nothing leaks.",
        "augment": "Add rows made from training rows.",
    },
    "With people": {
        "label": "Serve the page on which people label and approve.",
    },
    "Is it enough?": {
        "curve": "Forecast what more rows would be worth.",
        "compare": "Compare the data with a sample of real inputs.",
    },
    "What came of it": {
        "removed": "List every row that left or was altered, and why.",
        "restore": "Take a removal or a change back.",
        "log": "List the versions of the data set.",
        "diff": "Show what differs between two versions, row by row.",
        "card": "Print the data set's card.",
        "export": "Write it in another tool's format.",
    },
}


def _verb(name: str) -> click.Command:
    command: click.Command = getattr(importlib.import_module(f"tunesmith.cli.data_verbs.{name}"), name)
    return command


@click.group(cls=LazyGroup, sections=VERBS, load=_verb, parent_name="tunesmith data")
def data() -> None:
    """Data you can defend: every row that left or changed has its reason."""
