"""From scores over the vocabulary to a token: pure functions, shared by evaluation and the server.

Shapes: V vocabulary. Scores are logits or log-probabilities; softmax makes no difference between them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tunesmith.core.errors import require

LIKELY = 1024  # tokens sorted first; the nucleus seldom needs more, and sorting a whole vocabulary costs milliseconds


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
    probabilities_N, ids_N = nucleus(scores_V, temperature=temperature, top_p=top_p)
    draw = float(torch.rand((), dtype=torch.float64, generator=generator))
    place = int(torch.searchsorted(probabilities_N.cumsum(0), draw, right=True))
    return int(ids_N[min(place, len(ids_N) - 1)])


def nucleus(scores_V: Tensor, *, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Probabilities (float64, sum 1) and ids of the tokens that may be drawn, at least one; likeliest first
    where `top_p` is below 1."""
    probabilities_V = torch.softmax(scores_V.double() / temperature, dim=-1)
    if top_p == 1:
        return probabilities_V, torch.arange(len(probabilities_V), device=probabilities_V.device)
    for count in (LIKELY, len(probabilities_V)):
        likely_N, ids_N = probabilities_V.topk(min(count, len(probabilities_V)))
        if float(likely_N.sum()) >= top_p:
            break
    keep = max(int((likely_N.cumsum(0) - likely_N < top_p).sum()), 1)
    return likely_N[:keep] / likely_N[:keep].sum(), ids_N[:keep]


def top_logprobs(logprobs_V: Tensor, count: int) -> list[tuple[int, float]]:
    """The `count` likeliest tokens, likeliest first, with their log-probabilities in nats."""
    values, ids = logprobs_V.topk(min(count, len(logprobs_V)))
    return [(int(i), float(v)) for i, v in zip(ids, values, strict=True)]
