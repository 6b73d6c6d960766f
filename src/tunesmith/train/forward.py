"""From documents to the sum of their loss, on one of three paths with equal results.

flat    the fused forward of model/flat.py, where the architecture allows it and a probe proves it
packed  the model's own forward on documents one after another in one row, where it is asked for and a probe
        proves that they do not see each other
plain   the model's own forward on a padded batch of documents of like length: any architecture, any method, dropout
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from tunesmith.core.canonical import content_id
from tunesmith.model import flat as fused
from tunesmith.model.flat_layout import Document, pack
from tunesmith.model.methods.prompts import refuse_long, virtual_columns
from tunesmith.train import checkpointing, losses, neftune
from tunesmith.train.dropout import KeyedDropout, Noise, key_dropout

Precision = Literal["fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PROBE_TOKENS = 512  # rows compared before training, about so many tokens
PROBE_LIMITS = {"fp32": 1e-4, "bf16": 0.05}  # largest / mean difference, as a share of the logits' spread


NEFTUNE = "noise on the embeddings"


class Forward(Protocol):
    """`nll_sum` is differentiable; documents of one call are one micro-batch. `logits` are (N, V) float32
    at the supervised places, document by document."""

    path: str  # "flat", "packed" or "plain"
    why: str  # the reason for another path than flat
    shares_prefix: bool

    def nll_sum(self, documents: Sequence[Document], *, step: int | None) -> Tensor: ...

    def logits(self, documents: Sequence[Document]) -> Tensor: ...


def choose_forward(
    model: Any,
    documents: Sequence[Document],
    precision: Precision,
    *,
    full: bool,
    seed: int,
    smoothing: float = 0.0,
    neftune_alpha: float = 0.0,
    twice: bool = False,
    packing: bool = False,
) -> Forward:
    """The flat path if it can be used and gives the plain one's logits on the shortest of `documents`.

    `full`: all weights are trained, in fp32, so bf16 means autocast. `smoothing` of labels, in training steps
    alone; `neftune_alpha`: of its noise; `twice`: layers are computed twice to save memory;
    `packing`: the packed path in place of the plain one, where it gives the plain one's logits.
    """
    refuse_long(model, max(len(d.ids) for d in documents))
    plain = PlainForward(
        model, precision=precision, autocast=full and precision == "bf16", seed=seed, smoothing=smoothing
    )
    if neftune_alpha:
        plain.add_noise(neftune_alpha)
        plain.why = NEFTUNE  # it belongs to an example, and the shared prefix belongs to many
    if twice:
        plain.checkpoint_layers()
        plain.why = plain.why or "gradient checkpointing"
    plain.why = plain.why or fused.refusal(model, max(len(d.ids) for d in documents))
    probe = _probe_documents(documents)
    if plain.why:
        return PackedForward.instead_of(plain, probe, seed=seed) if packing else plain
    flat = FlatForward(model, precision, smoothing=smoothing)
    with torch.no_grad(), _moved_adapters(model, seed):
        off = _difference(flat.logits(probe), plain.logits(probe), precision)
    if off > PROBE_LIMITS[precision]:
        plain.why = f"the flat forward differs by {off:.1e} of the logits' spread"
        return plain
    return flat


def _difference(got: Tensor, want: Tensor, precision: Precision) -> float:
    """Largest (bf16: mean) difference of logits, as a share of their spread."""
    difference = (got - want).abs() / want.std()
    return float(difference.max() if precision == "fp32" else difference.mean())


class FlatForward:
    path, why, shares_prefix = "flat", "", True

    def __init__(self, model: Any, precision: Precision, *, smoothing: float = 0.0):
        self._flat, self._smoothing = fused.Flat(model, DTYPES[precision]), smoothing

    def nll_sum(self, documents: Sequence[Document], *, step: int | None) -> Tensor:
        packed = pack(documents)
        hidden, smoothing = self._flat.hidden(packed), 0.0 if step is None else self._smoothing
        flat, labels, weights = self._flat, packed.labels_N, packed.weights_N
        return losses.head_nll_sum(hidden, flat.head, labels, weights, smoothing=smoothing, learned=flat.learned_head)

    def logits(self, documents: Sequence[Document]) -> Tensor:
        return self._flat.logits(pack(documents))


class PlainForward:
    path, shares_prefix = "plain", False

    def __init__(self, model: Any, *, precision: Precision, autocast: bool, seed: int, smoothing: float = 0.0):
        self.why = ""
        self.precision: Precision = precision
        self._model, self._autocast, self._smoothing = model, autocast, smoothing
        self._noise = Noise(seed)
        key_dropout(model, self._noise)
        self._head = model.get_output_embeddings()

    def noisy(self) -> bool:
        """Whether something is drawn for each document, so that it needs a row of its own."""
        return bool(self.why == NEFTUNE) or any(isinstance(m, KeyedDropout) for m in self._model.modules())

    def add_noise(self, alpha: float) -> None:
        neftune.add_noise(self._model, alpha, self._noise)

    def checkpoint_layers(self) -> None:
        checkpointing.checkpoint_layers(self._model, self._noise)

    def nll_sum(self, documents: Sequence[Document], *, step: int | None) -> Tensor:
        """`step` seeds dropout and noise; None leaves them off, and smoothing too."""
        labels = [i for d in documents for i, t in zip(d.ids[1:], d.trained[1:], strict=True) if t]
        weights = [d.weight for d in documents for t in d.trained[1:] if t]
        with self._noise.of(step, documents):
            logits = self.logits(documents)
        smoothing = 0.0 if step is None else self._smoothing
        return losses.nll_sum(logits, torch.tensor(labels), torch.tensor(weights), smoothing=smoothing)

    def logits(self, documents: Sequence[Document]) -> Tensor:
        """Padding is on the right and causal attention never sees it, so no
        mask is needed; the head runs on the supervised places only."""
        longest = max(len(d.ids) for d in documents)
        ids_BT = torch.tensor([list(d.ids) + [0] * (longest - len(d.ids)) for d in documents])
        before = virtual_columns(self._model)
        starts = (b * (before + longest) + before - 1 for b in range(len(documents)))
        rows_N = torch.tensor(
            [s + t for s, d in zip(starts, documents, strict=True) for t in range(1, len(d.ids)) if d.trained[t]]
        )
        with _head_at(self._head, rows_N), torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            logits: Tensor = self._model(input_ids=ids_BT, use_cache=False).logits
        return logits[0].float()


class PackedForward(PlainForward):
    """The plain forward with nothing padded: transformers finds the documents' borders in position_ids where no mask
    is given. OPT and BLOOM let documents see each other instead, without a word: hence the probe."""

    path = "packed"

    @classmethod
    def instead_of(cls, plain: PlainForward, probe: Sequence[Document], *, seed: int) -> PlainForward:
        """`plain` made to pack; or `plain` itself, with the reason, where documents must not share a row."""
        packed = cls.__new__(cls)
        packed.__dict__ |= plain.__dict__
        refusal = packed._refusal(plain, probe, seed)
        if not refusal:
            return packed
        plain.why += f"; not packed: {refusal}"
        return plain

    def logits(self, documents: Sequence[Document]) -> Tensor:
        ids_BT = torch.tensor([[i for d in documents for i in d.ids]])
        positions_BT = torch.tensor([[t for d in documents for t in range(len(d.ids))]])
        rows, start = [], 0
        for d in documents:
            rows += [start + t - 1 for t in range(1, len(d.ids)) if d.trained[t]]
            start += len(d.ids)
        with _head_at(self._head, torch.tensor(rows)), torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            logits: Tensor = self._model(input_ids=ids_BT, position_ids=positions_BT, use_cache=False).logits
        return logits[0].float()

    def _refusal(self, plain: PlainForward, probe: Sequence[Document], seed: int) -> str:
        if self.noisy():
            return "noise belongs to a document"
        if getattr(getattr(self._model, "active_peft_config", None), "is_prompt_learning", False):
            return "virtual tokens belong to a document"
        if len(probe) < 2:
            return "there is but one document to compare"
        with torch.no_grad(), _moved_adapters(self._model, seed):
            want = torch.cat([plain.logits([d]) for d in probe])
            try:
                off = _difference(self.logits(probe), want, self.precision)
            except (TypeError, ValueError, RuntimeError) as e:
                return f"the architecture takes no positions ({(str(e).splitlines() or [''])[0][:120]})"
        limit = PROBE_LIMITS[self.precision]
        return f"documents in one row see each other ({off:.1e} of the logits' spread)" if off > limit else ""


@contextmanager
def _head_at(head: nn.Module, rows_N: Tensor) -> Iterator[None]:
    """The head sees [1, N, M] of [B, T, M]; what the model does to logits afterwards stays its own affair."""

    def select(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].flatten(0, 1).index_select(0, rows_N)[None], *inputs[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _probe_documents(documents: Sequence[Document]) -> list[Document]:
    ordered = sorted(documents, key=lambda d: (len(d.ids), d.key))
    chosen = ordered[:2]
    for d in ordered[2:8]:
        if sum(len(c.ids) for c in chosen) + len(d.ids) <= PROBE_TOKENS:
            chosen.append(d)
    return chosen


@contextmanager
def _moved_adapters(model: Any, seed: int) -> Iterator[None]:
    """Adapters start as a change of nothing, which would prove nothing: move them for a moment."""
    generator = torch.Generator().manual_seed(int(content_id(["probe", seed])[:8], 16))
    moved = [p for n, p in model.named_parameters() if "lora_B" in n and p.requires_grad]
    kept = [p.detach().clone() for p in moved]
    try:
        for p in moved:
            p.normal_(0, 0.02, generator=generator)
        yield
    finally:
        for p, k in zip(moved, kept, strict=True):
            p.copy_(k)
