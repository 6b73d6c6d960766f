"""Tunesmith turns a general language model into an expert at one job, and proves it.

In come raw examples and a measurable goal; out come a gated, served model and a page that says, with
intervals, whether the goal is met. Read core/nouns.py for the words, flows/run.py for the loop.
"""

__version__ = "0.1.0"

__all__ = ["Project", "__version__"]


def __getattr__(name: str) -> object:
    """`from tunesmith import Project`, without paying for it at `import tunesmith`."""
    if name == "Project":
        from tunesmith.api import Project

        return Project
    raise AttributeError(f"module 'tunesmith' has no attribute {name!r}")
