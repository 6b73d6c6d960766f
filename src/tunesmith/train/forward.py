"""From documents to the sum of their loss, on one of three paths with equal results.

flat    the fused forward of model/flat.py, where the architecture allows it and a probe proves it
packed  the model's own forward on documents one after another in one row, where it is asked for and a probe
        proves that they do not see each other
plain   the model's own forward on a padded batch of documents of like length: any architecture, any method, dropout
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from tunesmith.core.canonical import content_id
from tunesmith.core.errors import InputError, Problem
from tunesmith.model import flat as fused
from tunesmith.model.device import autocast
from tunesmith.model.flat_layout import Document, pack
from tunesmith.model.methods.prompts import refuse_long, virtual_columns
from tunesmith.train import checkpointing, losses, neftune
from tunesmith.train.batches import like_lengths
from tunesmith.train.dropout import KeyedDropout, Noise, key_dropout
from tunesmith.train.kernels import (
    Attention,
    Kernels,
    Undo,
    activations_on_cpu,
    attention_context,
    compile_layers,
    has_liger,
    use_attention,
    use_liger,
)

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
    device: torch.device

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
    twice: bool | Literal["selective"] = False,
    packing: bool = False,
    attention: Attention = "auto",
    kernels: Kernels = "none",
    compiled: bool = False,
    offload: bool = False,
    plain_because: str = "",
) -> Forward:
    """The flat path if it can be used and gives the plain one's logits on the shortest of `documents`.

    `full`: all weights are trained, in fp32, so bf16 means autocast. `smoothing` of labels, in training steps
    alone; `neftune_alpha`: of its noise; `twice`: layers are computed twice to save memory;
    `packing`: the packed path in place of the plain one, where it gives the plain one's logits. `attention`, `kernels`,
    `compiled`: as in train/kernels.py, where they give the logits of before; `offload`: activations wait on the CPU;
    `plain_because`: the plain path for this reason, unpacked.
    Raises InputError for an attention or kernels asked for by name that cannot be had, or differ.
    """
    refuse_long(model, max(len(d.ids) for d in documents))
    plain = PlainForward(
        model, precision=precision, autocast=full and precision == "bf16", seed=seed, smoothing=smoothing
    )
    if neftune_alpha:
        plain.add_noise(neftune_alpha)
        plain.why = NEFTUNE  # it belongs to an example, and the shared prefix belongs to many
    if plain_because:
        plain.call_the_head()
    asked = {
        plain_because: bool(plain_because),
        "gradient checkpointing": twice,
        f"exec.attention: {attention}": attention != "auto",
        "exec.compile": compiled,
        "bf16 weights": any(p.requires_grad and p.dtype != torch.float32 for p in model.parameters()),
    }
    plain.why = plain.why or next((why for why, wanted in asked.items() if wanted), "")
    plain.why = plain.why or fused.refusal(model, max(len(d.ids) for d in documents))
    probe = _probe_documents(documents)
    if plain.why:
        _hasten(plain, probe, seed, attention, kernels, compiled)
        if twice:
            plain.checkpoint_layers(selective=twice == "selective")
        plain.offload = offload
        return PackedForward.instead_of(plain, probe, seed=seed) if packing and not plain_because else plain
    flat = FlatForward(model, precision, smoothing=smoothing)
    with torch.no_grad(), _moved_adapters(model, seed):
        off = _difference(flat.logits(probe), plain.logits(probe), precision)
    if off > PROBE_LIMITS[precision]:
        plain.why = f"the flat forward differs by {off:.1e} of the logits' spread"
        return plain
    return flat


def _hasten(
    plain: PlainForward,
    probe: Sequence[Document],
    seed: int,
    attention: Attention,
    kernels: Kernels,
    compiled: bool,
) -> None:
    """Change how `plain` computes, one thing after another, each held against the logits before it."""
    model, device = plain.model, plain.device
    if attention != "auto":

        def attend() -> Undo:
            undo = use_attention(model, attention, device, plain.precision)
            plain.attention = attention
            return undo

        if off := _changed(plain, probe, seed, attend):
            what, fix = f"{attention} attention differs here: {off}", "--set exec.attention=auto"
            raise InputError(Problem(where="exec.attention", what=what, fix=fix))
    if kernels == "liger" or (kernels == "auto" and has_liger(device)):
        off = _changed(plain, probe, seed, partial(use_liger, model, device))
        if off and kernels == "liger":
            what = f"Liger's kernels differ here: {off}"
            raise InputError(Problem(where="exec.kernels", what=what, fix="--set exec.kernels=none"))
        plain.why += f"; without Liger: {off}" if off else "; with Liger's kernels"
    if compiled:
        off = _changed(plain, probe, seed, partial(compile_layers, model))
        plain.why += f"; not compiled: {off}" if off else "; compiled"


def _changed(plain: PlainForward, probe: Sequence[Document], seed: int, change: Callable[[], Undo]) -> str:
    """ "" where the logits stay after `change`; else it is undone, and this says how far they are off."""
    with torch.no_grad(), _moved_adapters(plain.model, seed):
        want = plain.logits(probe)
        undo = change()
        try:
            off = _difference(plain.logits(probe), want, plain.precision)
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as e:
            undo()
            return (str(e).splitlines() or [type(e).__name__])[0][:160]
    if off <= PROBE_LIMITS[plain.precision]:
        return ""
    undo()
    return f"{off:.1e} of the logits' spread"


def _difference(got: Tensor, want: Tensor, precision: Precision) -> float:
    """Largest (bf16: mean) difference of logits, as a share of their spread."""
    difference = (got - want).abs() / want.std()
    return float(difference.max() if precision == "fp32" else difference.mean())


class FlatForward:
    path, why, shares_prefix = "flat", "", True
    device = torch.device("cpu")

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
        self._autocast, self._smoothing = autocast, smoothing
        self._noise = Noise(seed)
        key_dropout(model, self._noise)
        self._head = model.get_output_embeddings()
        self.model, self.device = model, next(model.parameters()).device
        self.attention: Attention = "auto"
        self.offload = False  # activations wait in the CPU's memory
        self._head_is_last, self._head_seen = True, False  # whether logits are what the head gives; see _hidden

    def noisy(self) -> bool:
        """Whether something is drawn for each document, so that it needs a row of its own."""
        return bool(self.why == NEFTUNE) or any(isinstance(m, KeyedDropout) for m in self.model.modules())

    def call_the_head(self) -> None:
        """Logits come from the model's own forward alone: the head's weights are whole only inside it."""
        self._head_is_last = False

    def run_through(self, model: Any) -> None:
        """Call this in place of the model, which it wraps."""
        self.model = model

    def add_noise(self, alpha: float) -> None:
        neftune.add_noise(self.model, alpha, self._noise)

    def checkpoint_layers(self, *, selective: bool = False) -> None:
        checkpointing.checkpoint_layers(self.model, self._noise, selective=selective)

    def nll_sum(self, documents: Sequence[Document], *, step: int | None) -> Tensor:
        """`step` seeds dropout and noise; None leaves them off, and smoothing too."""
        return torch.stack([self._nll_sum_at_once(g, step=step) for g in self._groups(documents)]).sum()

    def _groups(self, documents: Sequence[Document]) -> Sequence[Sequence[Document]]:
        """What is padded together. An accelerator would wait longer for more calls than for padding, and processes
        that share a model must call it as often as each other."""
        ranks = torch.distributed.is_available() and torch.distributed.is_initialized()
        return [documents] if self.device.type != "cpu" or ranks else like_lengths(documents)

    def _nll_sum_at_once(self, documents: Sequence[Document], *, step: int | None) -> Tensor:
        labels = self._tensor([i for d in documents for i, t in zip(d.ids[1:], d.trained[1:], strict=True) if t])
        weights = self._tensor([d.weight_at(t) for d in documents for t in range(1, len(d.ids)) if d.trained[t]])
        smoothing = 0.0 if step is None else self._smoothing
        with self._noise.of(step, documents):
            if not self._head_is_last:
                return losses.nll_sum(self.logits(documents), labels, weights, smoothing=smoothing)
            hidden = self._hidden(documents)
            if not self._head_is_last:  # found out just now
                return self._nll_sum_at_once(documents, step=step)
            return self._head_loss(hidden, labels, weights, smoothing)

    def logits(self, documents: Sequence[Document]) -> Tensor:
        """The head runs on the supervised places only."""
        arguments, rows_N = self._arguments(documents)
        with _head_at(self._head, rows_N), self._computing():
            logits: Tensor = self.model(**arguments, use_cache=False).logits
        return logits[0].float()

    def _arguments(self, documents: Sequence[Document]) -> tuple[dict[str, Tensor], Tensor]:
        """(what the model reads, supervised rows of what comes out). Padding is on the right and causal attention
        never sees it, so no mask is needed."""
        longest = max(len(d.ids) for d in documents)
        ids_BT = self._tensor([list(d.ids) + [0] * (longest - len(d.ids)) for d in documents])
        before = virtual_columns(self.model)
        starts = (b * (before + longest) + before - 1 for b in range(len(documents)))
        rows_N = [s + t for s, d in zip(starts, documents, strict=True) for t in range(1, len(d.ids)) if d.trained[t]]
        return {"input_ids": ids_BT}, self._tensor(rows_N)

    def _hidden(self, documents: Sequence[Document]) -> Tensor:
        """(N, M): what the head is given at the supervised places, for a loss that never holds all logits (N, V).
        The first row goes through the head as well, to see whether the model changes logits after it."""
        arguments, rows_N = self._arguments(documents)
        with _head_inputs(self._head, rows_N) as found, self._computing():
            logits = self.model(**arguments, use_cache=False).logits
        if not self._head_seen:
            self._head_seen = True
            with torch.no_grad(), autocast(self.device, self._autocast):
                self._head_is_last = torch.equal(logits, self._head(found[0][None, :1]))
        return found[0]

    def _head_loss(self, hidden: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> Tensor:
        head = self._head
        if type(head) is nn.Linear and head.bias is None:
            dtype = torch.bfloat16 if self._autocast else head.weight.dtype
            return losses.head_nll_sum(
                hidden.to(dtype),
                head.weight.detach().to(dtype),
                labels,
                weights,
                smoothing=smoothing,
                learned=head.weight if head.weight.requires_grad else None,
            )
        with autocast(self.device, self._autocast):
            return losses.module_nll_sum(hidden, head, labels, weights, smoothing=smoothing)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        away = activations_on_cpu(self.device) if self.offload else nullcontext()
        with autocast(self.device, self._autocast), attention_context(self.attention), away:
            yield

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, device=self.device)


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

    def _groups(self, documents: Sequence[Document]) -> Sequence[Sequence[Document]]:
        return [documents]

    def _arguments(self, documents: Sequence[Document]) -> tuple[dict[str, Tensor], Tensor]:
        ids_BT = self._tensor([[i for d in documents for i in d.ids]])
        positions_BT = self._tensor([[t for d in documents for t in range(len(d.ids))]])
        rows, start = [], 0
        for d in documents:
            rows += [start + t - 1 for t in range(1, len(d.ids)) if d.trained[t]]
            start += len(d.ids)
        return {"input_ids": ids_BT, "position_ids": positions_BT}, self._tensor(rows)

    def _refusal(self, plain: PlainForward, probe: Sequence[Document], seed: int) -> str:
        if self.noisy():
            return "noise belongs to a document"
        if getattr(getattr(self.model, "active_peft_config", None), "is_prompt_learning", False):
            return "virtual tokens belong to a document"
        if len(probe) < 2:
            return "there is but one document to compare"
        with torch.no_grad(), _moved_adapters(self.model, seed):
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


@contextmanager
def _head_inputs(head: nn.Module, rows_N: Tensor) -> Iterator[list[Tensor]]:
    """Holds (N, M) of what the head is given, and lets it see the first of them alone."""
    found: list[Tensor] = []

    def select(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        found.append(inputs[0].flatten(0, 1).index_select(0, rows_N))
        return (found[0][:1].detach()[None], *inputs[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield found
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
            p.copy_(torch.empty(p.shape).normal_(0, 0.02, generator=generator))
        yield
    finally:
        for p, k in zip(moved, kept, strict=True):
            p.copy_(k)
