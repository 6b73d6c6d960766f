"""From scores over the vocabulary to a token: pure functions, shared by evaluation and the server.

Shapes: V vocabulary. Scores are logits or log-probabilities; softmax makes no difference between them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tunesmith.core.errors import require


def sample(scores_V: Tensor, *, temperature: float, top_p: float, generator: torch.Generator | None) -> int:
    """One token id. Temperature 0 takes the largest score, the lower id where two are equal.

    Otherwise one uniform number from `generator` picks from the nucleus: the fewest likeliest tokens whose
    probability together reaches `top_p`. It is a function of the scores and the generator's state alone, so
    an item's text does not depend on what else is in its batch. Source: Holtzman et al. 2020, arXiv:1904.09751.
    """
    if temperature == 0:
        return int(scores_V.argmax())
    require(temperature > 0, "temperature", temperature, "0 or more")
    require(0 < top_p <= 1, "top_p", top_p, "in (0, 1]")
    probabilities_V, ids_V = nucleus(scores_V, temperature=temperature, top_p=top_p)
    draw = float(torch.rand((), dtype=torch.float64, generator=generator))
    place = int(torch.searchsorted(probabilities_V.cumsum(0), draw, right=True))
    return int(ids_V[min(place, len(ids_V) - 1)])


def nucleus(scores_V: Tensor, *, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Probabilities (float64, sum 1, falling) and ids of the tokens that may be drawn; always at least one."""
    probabilities_V = torch.softmax(scores_V.double() / temperature, dim=-1)
    probabilities_V, ids_V = probabilities_V.sort(descending=True, stable=True)
    before_V = probabilities_V.cumsum(0) - probabilities_V
    keep = max(int((before_V < top_p).sum()), 1)
    return probabilities_V[:keep] / probabilities_V[:keep].sum(), ids_V[:keep]


def top_logprobs(logprobs_V: Tensor, count: int) -> list[tuple[int, float]]:
    """The `count` likeliest tokens, likeliest first, with their log-probabilities in nats."""
    values, ids = logprobs_V.sort(descending=True, stable=True)
    return [(int(i), float(v)) for i, v in zip(ids[:count], values[:count], strict=True)]
