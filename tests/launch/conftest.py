from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.data import make_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="session")
def sharp_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights so wide that an adapter can move its logits by many nats."""
    from tests.tiny import make_tiny

    return make_tiny(
        tmp_path_factory.mktemp("models") / "sharp-llama", initializer_range=0.5, tie_word_embeddings=False
    )
