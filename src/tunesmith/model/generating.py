"""Token after token: batched decoding on the cache, with each item's text independent of its batch.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tunesmith.core.canonical import content_id
from tunesmith.model.forward import Network
from tunesmith.model.routes import route
from tunesmith.model.rows import Rows, padded_batches, read_rows
from tunesmith.model.sampling import sample

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen and when to stop."""

    max_new_tokens: int
    temperature: float  # 0: always the likeliest
    top_p: float
    seed: int
    stop: tuple[str, ...]  # texts that end an answer and are not part of it
    stop_ids: frozenset[int]


@dataclass(slots=True)
class Text:
    """One answer as it grows."""

    item: int
    generator: torch.Generator
    ids: list[int] = field(default_factory=list)  # stop token included
    logprob: float = 0.0  # nats, at temperature 1
    finish: str = "length"
    cut: str | None = None  # the text before a stop string

    def add(self, logits_V: Tensor, sampling: Sampling, decode: Decode) -> bool:
        """One more token; True when it was the last."""
        token = sample(logits_V, temperature=sampling.temperature, top_p=sampling.top_p, generator=self.generator)
        self.logprob += float(torch.log_softmax(logits_V, -1)[token])
        self.ids.append(token)
        if token in sampling.stop_ids:
            self.finish = "stop"
            return True
        if sampling.stop:
            text = decode(self.ids)
            found = [at for at in (text.find(s) for s in sampling.stop) if at >= 0]
            if found:
                self.finish, self.cut = "stop", text[: min(found)]
                return True
        return len(self.ids) >= sampling.max_new_tokens


def generate(
    network: Network, prompts: Sequence[Sequence[int]], sampling: Sampling, decode: Decode, *, batch_tokens: int
) -> list[Text]:
    """One text for each prompt, in their order.

    Each item draws from a generator of its own, seeded by `seed` and the item's place, so neither
    `batch_tokens` nor the other items change what it says.
    """
    texts = [Text(i, item_generator(sampling.seed, i)) for i in range(len(prompts))]
    longest = max(len(p) for p in prompts) + sampling.max_new_tokens
    if route(network, longest) == "plain":
        for text in texts:
            _without_cache(network, prompts[text.item], text, sampling, decode)
        return texts
    for batch in padded_batches(prompts, batch_tokens=batch_tokens, more=sampling.max_new_tokens):
        _decode_rows(network, [prompts[i] for i in batch], [texts[i] for i in batch], sampling, decode)
    return texts


def item_generator(seed: int, item: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(content_id([seed, item])[:15], 16))


def _decode_rows(
    network: Network, prompts: list[Sequence[int]], texts: list[Text], sampling: Sampling, decode: Decode
) -> None:
    rows = read_rows(network, prompts)
    while True:
        logits_BV = rows.logits_BV.float()
        going = [r for r, text in enumerate(texts) if not text.add(logits_BV[r], sampling, decode)]
        if not going:
            return
        if len(going) < len(texts):
            rows, texts = rows.keep(going), [texts[r] for r in going]
        rows = step(network, rows, [text.ids[-1] for text in texts])


def step(network: Network, rows: Rows, tokens: list[int]) -> Rows:
    """The rows after one more token each."""
    b = len(tokens)
    mask = torch.cat([rows.mask_BK, rows.mask_BK.new_ones(b, 1)], 1)
    logits = network(
        torch.tensor(tokens)[:, None],
        positions_BT=torch.tensor(rows.lengths)[:, None],
        mask=mask,
        cache=rows.cache,
        at=(torch.arange(b), torch.zeros(b, dtype=torch.long)),
    )
    return Rows(logits, rows.cache, mask, [n + 1 for n in rows.lengths])


def _without_cache(network: Network, prompt: Sequence[int], text: Text, sampling: Sampling, decode: Decode) -> None:
    """The whole sequence again for each token: slow, and right for every architecture."""
    while True:
        ids = torch.tensor([[*prompt, *text.ids]])
        last = torch.tensor([ids.shape[1] - 1])
        logits = network(
            ids,
            positions_BT=torch.arange(ids.shape[1])[None],
            mask=torch.ones_like(ids),
            cache=None,
            at=(torch.zeros(1, dtype=torch.long), last),
        )
        if text.add(logits[0].float(), sampling, decode):
            return
