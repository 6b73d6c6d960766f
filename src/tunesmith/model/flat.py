"""A faster forward and backward for Llama-like models, over the same parameters as the plain one.

No padding, the shared prompt prefix computed once, query/key/value and gate/up fused, adapters inside
the base product, the last layer and the head only where a token is supervised. `refusal` says why a
model cannot use it; train/forward.py proves before use that its logits are the plain forward's.
Read flat_layout.py for the packed row, flat_weights.py for what is trained, flat_blocks.py for a layer,
flat_attention.py and flat_ops.py for the arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith.model.flat_blocks import Attention, Mlp, Norm
from tunesmith.model.flat_fit import FAMILIES, linears, plain_model, refusal
from tunesmith.model.flat_layout import Packed
from tunesmith.model.flat_weights import Projection

__all__ = ["FAMILIES", "Flat", "Layer", "plain_model", "refusal"]


class Layer:
    """One decoder layer's fused weights."""

    def __init__(self, layer: Any, dtype: torch.dtype, buffers: dict[tuple[int, int], Tensor]):
        a, m = layer.self_attn, layer.mlp
        self.qkv = Projection([a.q_proj, a.k_proj, a.v_proj], dtype, buffers)
        self.o = Projection([a.o_proj], dtype, buffers)
        self.gate_up = Projection([m.gate_proj, m.up_proj], dtype, buffers)
        self.down = Projection([m.down_proj], dtype, buffers)
        self._norms = (layer.input_layernorm, layer.post_attention_layernorm)
        norms = [getattr(a, n, None) for n in ("q_norm", "k_norm")]
        self.head_norms = [n.weight for n in norms if n is not None]  # Qwen3
        self.learned_norm1, self.learned_norm2 = (n.weight if n.weight.requires_grad else None for n in self._norms)
        self.projections = (self.qkv, self.o, self.gate_up, self.down)
        learned_heads = [n for n in self.head_norms if n.requires_grad]
        before_o = [*([] if self.learned_norm1 is None else [self.learned_norm1]), *learned_heads, *self.qkv.trained]
        self.attention_learns_before_o = bool(before_o)
        self.attention_trained = [*before_o, *self.o.trained]
        norm2 = [] if self.learned_norm2 is None else [self.learned_norm2]
        self.mlp_trained = [*norm2, *self.gate_up.trained, *self.down.trained]

    @property
    def norm1(self) -> Tensor:
        weight: Tensor = self._norms[0].weight.detach().float()
        return weight

    @property
    def norm2(self) -> Tensor:
        weight: Tensor = self._norms[1].weight.detach().float()
        return weight


class Flat:
    """The flat forward of a model for which `refusal` is empty. Building it may make the model's linear
    weights views of the fused matrices; the model itself keeps working."""

    def __init__(self, model: Any, dtype: torch.dtype):
        inner = plain_model(model)
        c = inner.config
        self.dtype = dtype
        self.heads, self.key_heads = c.num_attention_heads, c.num_key_value_heads
        self.head_size = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        self.eps = c.rms_norm_eps
        _leave_the_file(inner)
        buffers: dict[tuple[int, int], Tensor] = {}  # for quantized weights, one of each shape
        self.layers = [Layer(layer, dtype, buffers) for layer in inner.model.layers]
        self._norm, self._embedding, self._head = inner.model.norm, inner.model.embed_tokens, inner.lm_head
        self._head_cast: Tensor | None = None
        self.rotary = inner.model.rotary_emb

    def hidden(self, packed: Packed) -> Tensor:
        """Last hidden states, normed, at rows_N: [N, M] in the run's type."""
        words = self._embedding.weight
        words = words if words.requires_grad else words.detach()
        h = F.embedding(packed.ids_T, words, self._embedding.padding_idx).float()
        cos, sin = (
            x[0, :, None, : self.head_size // 2].to(self.dtype).contiguous()
            for x in self.rotary(h[None], packed.positions_T[None])
        )
        for i, layer in enumerate(self.layers):
            for projection in layer.projections:
                projection.refresh()
            rows = packed.rows_N if i == len(self.layers) - 1 else None
            h = Attention.apply(h, self, layer, packed, cos, sin, rows, *layer.attention_trained)
            h = Mlp.apply(h, self, layer, *layer.mlp_trained)
        weight = self._norm.weight
        learned = weight if weight.requires_grad else None
        return Norm.apply(h, weight.detach().float(), self.eps, self.dtype, learned)

    @property
    def head(self) -> Tensor:
        """[V, M] in the run's type, as the optimizer left it; no copy where the types agree."""
        weight: Tensor = self._head.weight.detach()
        if weight.dtype == self.dtype:
            return weight
        if self._head_cast is None:
            self._head_cast = torch.empty_like(weight, dtype=self.dtype)
        elif not self._head.weight.requires_grad:
            return self._head_cast
        return self._head_cast.copy_(weight)

    @property
    def learned_head(self) -> Tensor | None:
        weight: Tensor = self._head.weight
        return weight if weight.requires_grad else None

    def logits(self, packed: Packed) -> Tensor:
        """[supervised, V] float32."""
        return (self.hidden(packed)[: packed.supervised] @ self.head.T).float()


def _leave_the_file(inner: Any) -> None:
    """Weights come as parts of the mapped file, and one of them keeps all of it in memory: 500 MB for 135M weights
    whose linear ones are copied into fused matrices. Those that stay where they are get memory of their own."""
    linear = {id(getattr(x, "base_layer", x).weight) for layer in inner.model.layers for x in linears(layer)}
    for p in inner.parameters():
        if id(p) not in linear:
            p.data = p.data.clone()
