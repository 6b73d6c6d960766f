from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.model.methods.kinds import make_family


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name → the folder of a tiny model, made once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = make_family(tmp_path_factory.mktemp("families") / name, name)
        return made[name]

    return get
