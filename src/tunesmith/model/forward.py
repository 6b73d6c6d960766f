"""A causal model called one way, whatever its family: ids, positions, mask and cache in, logits out.

Shapes: B rows, T new tokens, K columns of the cache after them, N places whose logits are wanted,
V vocabulary, H key-value heads, D head size.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from tunesmith.model.methods.prompts import answering

LOGITS = 1 << 27  # logits held at once, at most; callers size their batches by it
ROOM = 32  # columns of a cache added at a time, so that a step copies only its own


class Network:
    """A transformers or PEFT model for inference. Its mode, its gradients and the random state stay as found."""

    def __init__(self, model: Any) -> None:
        inner = answering(model)
        names = inspect.signature(inner.forward).parameters
        config = inner.config.get_text_config(decoder=True)
        self.inner = inner
        self._head: nn.Module | None = inner.get_output_embeddings()
        self._cache_name = "cache" if "cache" in names else "past_key_values"  # renamed in transformers 5.24
        self._takes_positions = "position_ids" in names
        self.device = next(inner.parameters()).device
        self.dtype: torch.dtype = inner.dtype
        self.family = (type(inner).__name__, str(getattr(config, "_attn_implementation", "")))
        self.vocab_size: int = config.vocab_size
        self.limit: int | None = getattr(config, "max_position_embeddings", None)
        self.window = _window(config)

    def cache(self) -> KeyValues:
        """An empty one, of the kind that this network fills."""
        return KeyValues()

    def places_at_once(self, batch_tokens: int) -> int:
        """Places whose next token's distribution may be asked for in one call."""
        return LOGITS // self.vocab_size

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode and no gradients inside; every module's own mode and the random state again afterwards."""
        training = [m for m in self.inner.modules() if m.training]
        self.inner.eval()
        try:
            # not inference_mode: what a module caches here must not poison a later backward pass
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                yield
        finally:
            for module in training:
                module.training = True

    def __call__(
        self, ids_BT: Tensor, *, positions_BT: Tensor, mask: Tensor, cache: KeyValues | None, at: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Logits (N, V), in the model's dtype, at rows `at[0]` and columns `at[1]` of `ids_BT`.

        `mask` is (B, K) of ones and zeros, or (B, T, K) of booleans: which columns each token sees.
        The output head is by far the widest matrix, so it is only fed the places that are asked for.
        Arguments may be on the CPU, where rows are put together; the logits are where the model is.
        """
        ids_BT, positions_BT, mask = (t.to(self.device) for t in (ids_BT, positions_BT, mask))
        rows, columns = at[0].to(self.device), at[1].to(self.device)
        picked = False

        def pick(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            nonlocal picked
            picked = True
            return (arguments[0][rows, columns].unsqueeze(0), *arguments[1:])

        arguments: dict[str, Any] = {"input_ids": ids_BT, "use_cache": cache is not None}
        arguments["attention_mask"] = additive(mask, self.dtype) if mask.ndim == 3 else mask
        if self._takes_positions:
            arguments["position_ids"] = positions_BT
        if cache is not None:
            arguments[self._cache_name] = cache.cache
        handle = self._head.register_forward_pre_hook(pick) if self._head is not None else None
        try:
            logits = self.inner(**arguments).logits
        finally:
            if handle is not None:
                handle.remove()
        return logits[0] if picked else logits[rows, columns]

    def next_log_probabilities(
        self,
        ids_BT: Tensor,
        *,
        positions_BT: Tensor,
        mask: Tensor,
        cache: KeyValues,
        at: tuple[Tensor, Tensor],
        places: Tensor,
        tokens: Tensor,
    ) -> Tensor:
        """log P(tokens[i]) after the token at `at`[places[i]], in nats, float32. The cache takes in the new columns."""
        logits_NV = self(ids_BT, positions_BT=positions_BT, mask=mask, cache=cache, at=at)
        return log_probabilities(logits_NV, places, tokens)


def additive(mask_BTK: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, T, K): 0 where a token sees a column, the dtype's least number where not."""
    least = torch.finfo(dtype).min
    return torch.zeros(mask_BTK.shape, dtype=dtype, device=mask_BTK.device).masked_fill_(~mask_BTK, least).unsqueeze(1)


def log_probabilities(logits_NV: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
    """log P(tokens[i]) at logits row places[i], in nats; the normaliser is float32 even for bf16 logits."""
    places, tokens = places.to(logits_NV.device), tokens.to(logits_NV.device)
    normaliser_N = torch.cat([_logsumexp(part) for part in logits_NV.split(8)])  # parts that fit a core's cache
    return logits_NV[places, tokens].float() - normaliser_N[places]


def _logsumexp(logits_NV: Tensor) -> Tensor:
    """In float32 with one temporary: over a whole vocabulary torch's own spends half its time on page faults."""
    logits_NV = logits_NV.to(torch.float32, copy=True)
    most_N = logits_NV.amax(-1, keepdim=True)
    return logits_NV.sub_(most_N).exp_().sum(-1).log_() + most_N[:, 0]


class KeyValues:
    """The keys and values of the tokens that B rows have seen."""

    def __init__(self, cache: Cache | None = None) -> None:
        self.cache = cache or Cache(layer_class_to_replicate=_Block)

    @property
    def columns(self) -> int:
        return self.cache.layers[0].used if self.cache.layers else 0

    def rows(self, rows: list[int]) -> KeyValues:
        """A copy that holds the given rows, repeats allowed, with room for more columns."""
        index = torch.tensor(rows)
        cache = Cache(layer_class_to_replicate=_Block)
        for layer in self.cache.layers:
            cache.layers.append(layer.copy(index))
        return KeyValues(cache)

    def crop(self, columns: int) -> None:
        """Forget all columns after the first `columns`."""
        for layer in self.cache.layers:
            layer.used = columns


class _Block(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """One layer's keys and values (B, H, columns, D) in buffers with spare columns at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: Any
        self.values: Any
        self.is_initialized: bool
        self.used = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        end = self.used + key_states.shape[-2]
        if not self.is_initialized or end > self.keys.shape[-2]:
            self.keys = _wider(self.keys, key_states, self.used, end)
            self.values = _wider(self.values, value_states, self.used, end)
            self.device, self.is_initialized = key_states.device, True
        self.keys[:, :, self.used : end] = key_states
        self.values[:, :, self.used : end] = value_states
        self.used = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def copy(self, index: Tensor) -> _Block:
        new = _Block()
        for name in ("keys", "values"):
            old = getattr(self, name)[:, :, : self.used]
            wide = old.new_empty((len(index), old.shape[1], self.used + ROOM, old.shape[3]))
            wide[:, :, : self.used] = old[index.to(old.device)]
            setattr(new, name, wide)
        new.used, new.device, new.is_initialized = self.used, self.device, True
        return new

    def get_seq_length(self) -> int:
        return self.used

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.used + query_length, 0


def _wider(old: Tensor | None, new: Tensor, used: int, end: int) -> Tensor:
    wide = new.new_empty((new.shape[0], new.shape[1], end + ROOM, new.shape[3]))
    if old is not None and used:
        wide[:, :, :used] = old[:, :, :used]
    return wide


def _window(config: Any) -> int | None:
    """How many tokens the narrowest layer looks back over; None where every layer sees all."""
    if getattr(config, "use_sliding_window", True) is False:
        return None
    kinds = getattr(config, "layer_types", None)
    if kinds and all(kind == "full_attention" for kind in kinds):
        return None
    found = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size")]
    widths = [w for w in found if isinstance(w, int) and w > 0]
    return min(widths) if widths else None
