"""Each of several ranks computes on the GPU of its own number."""

from __future__ import annotations

import pytest

from tunesmith.core.errors import InputError
from tunesmith.model.device import device_of


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)


@pytest.mark.parametrize(("rank", "said", "want"), [
    (None, "auto", "cuda:0"), (0, "auto", "cuda:0"), (2, "auto", "cuda:2"), (2, "cuda", "cuda:2"),
    (1, "cuda:0", "cuda:0"), (1, "cpu", "cpu"),
])  # fmt: skip
def test_the_device_of_a_rank(
    three_gpus: None, monkeypatch: pytest.MonkeyPatch, rank: int | None, said: str, want: str
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", str(rank))
    assert str(device_of(said)) == want


def test_a_rank_without_a_gpu_of_its_number(three_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(InputError, match="torch sees 3 GPUs"):
        device_of("auto")


def test_without_a_gpu_every_rank_is_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert str(device_of("auto")) == "cpu"
