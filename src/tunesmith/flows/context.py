"""What every flow needs to know about the project it works on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.core.nouns import Goal, Task
from tunesmith.core.settings import Settings
from tunesmith.core.sources import expand
from tunesmith.core.stage import no_progress
from tunesmith.ledger.ledger import Ledger
from tunesmith.text.prompt import system_prompt


@dataclass(frozen=True, kw_only=True)
class Context:
    root: Path  # the project's folder
    settings: Settings
    task: Task
    goals: tuple[Goal, ...]
    ledger: Ledger
    progress: Callable[..., None] = no_progress
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return self.root.resolve().name

    @property
    def data_files(self) -> dict[str, Path]:
        """Every file that data.files stands for, by the name it is known by."""
        return expand(self.root, self.settings.data.files).files

    @property
    def system(self) -> str:
        """The tuned model's system prompt. Short: what the labels are, it has learnt."""
        return system_prompt(self.task, (), list_labels=False)
