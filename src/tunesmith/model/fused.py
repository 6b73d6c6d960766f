"""A forward for scoring labels with Llama-like models: the same weights as the plain one, read where they are.

Rotary embedding and caches are written once, straight where attention reads them; activation, gate and residual ride
on the matrix products where the CPU's library can; and the logits of a whole vocabulary are summed
up piece by piece while a piece is in the core's cache, never held at once. `refusal` says which models cannot use
it, and routes.py proves before use that its scores are the plain forward's.

Shapes: B rows, T new tokens, C columns that they attend to, M hidden, H query heads, K key heads, D head size,
N places, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tunesmith.model.flat_fit import FAMILIES
from tunesmith.model.forward import KeyValues, Network, additive

TOKENS = 2048  # of the rows that go through all layers together: enough for fast products, few enough for the caches
HEAD_ROWS, HEAD_COLUMNS = 1024, 512  # logits at once
RUN = 48  # tokens that attend together
GATHER = 0.8  # share of the columns up to the last one that must be seen for not picking them out
SAFE = (1e-20, 1e30)  # sums of exponents between these lost nothing to underflow or overflow in float32


def refusal(model: Any) -> str:
    """Why this model cannot use the fused forward; empty if it can."""
    config = model.config
    if getattr(config, "model_type", "") not in FAMILIES:
        return f"{getattr(config, 'model_type', type(model).__name__)} is not one of {', '.join(FAMILIES)}"
    if config.hidden_act != "silu":
        return f"activation {config.hidden_act}"
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") in ("dynamic", "longrope"):
        return f"rotary embedding of type {rope['rope_type']}"
    if next(model.parameters()).device.type != "cpu":
        return "not on the CPU"
    for layer in model.model.layers:
        if hasattr(layer, "base_layer"):
            return f"a layer is inside a {type(layer).__name__}"
        a, m = layer.self_attn, layer.mlp
        for linear in (a.q_proj, a.k_proj, a.v_proj, a.o_proj, m.gate_proj, m.up_proj, m.down_proj, model.lm_head):
            if type(linear) is not nn.Linear:
                return f"a linear layer is a {type(linear).__name__}"
    return "" if model.lm_head.bias is None else "an output head with a bias"


class HeldKeys(KeyValues):
    """Keys and values of each layer, (B, K, columns, D), one after the other without gaps."""

    def __init__(self, layers: list[tuple[Tensor, Tensor]] | None = None) -> None:
        self.layers = layers or []

    @property
    def columns(self) -> int:
        return self.layers[0][0].shape[2] if self.layers else 0

    def rows(self, rows: list[int]) -> HeldKeys:
        index = torch.tensor(rows)
        return HeldKeys([(k[index], v[index]) for k, v in self.layers])


class FusedNetwork(Network):
    """A model for which `refusal` is empty. Weights are looked up at each call, so training may go on between."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        config = self.inner.config
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_size: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.eps: float = config.rms_norm_eps
        self.rides = _rides(self.dtype)

    def cache(self) -> HeldKeys:
        return HeldKeys()

    def places_at_once(self, batch_tokens: int) -> int:
        return batch_tokens  # no logits are held, but keys and values are

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
        assert isinstance(cache, HeldKeys)
        hidden_BTM = self._hidden(ids_BT, positions_BT, mask, cache)
        if not len(tokens):
            return torch.zeros(0)
        hidden_NM = self._norm(hidden_BTM[at[0], at[1]], self.inner.model.norm.weight)
        return log_probabilities(hidden_NM, self.inner.lm_head.weight, places, tokens)

    def _hidden(self, ids_BT: Tensor, positions_BT: Tensor, mask: Tensor, cache: HeldKeys) -> Tensor:
        """(B, T, M) after the last layer, not normed. The cache takes in the new columns."""
        B, T = ids_BT.shape
        body = self.inner.model
        old, end = cache.layers, cache.columns + T
        if mask.ndim == 2:
            mask = mask[:, None, :].bool() & torch.ones(T, end, dtype=torch.bool).tril(end - T)
        h_BTM = F.embedding(ids_BT, body.embed_tokens.weight)
        cos, sin = (x[:, :, None, : self.head_size // 2] for x in body.rotary_emb(h_BTM, positions_BT.expand(B, T)))
        cos, sin = cos.expand(B, -1, -1, -1), sin.expand(B, -1, -1, -1)
        shape = (B, self.key_heads, end, self.head_size)
        cache.layers = [(h_BTM.new_empty(shape), h_BTM.new_empty(shape)) for _ in body.layers]
        step = max(1, TOKENS // T)
        for rows in (slice(low, min(B, low + step)) for low in range(0, B, step)):
            runs = _runs(mask[rows], self.dtype)
            room = max(run.bias.numel() for run in runs) * self.heads
            scratch = (h_BTM.new_empty(room), h_BTM.new_empty(room))
            h = h_BTM[rows].reshape(-1, h_BTM.shape[-1])
            for i, layer in enumerate(body.layers):
                keys, values = (t[rows] for t in cache.layers[i])
                if old:
                    keys[:, :, : end - T], values[:, :, : end - T] = old[i][0][rows], old[i][1][rows]
                x = self._norm(h, layer.input_layernorm.weight)
                queries = self._project(layer.self_attn, x, (cos[rows], sin[rows]), keys, values)
                a = self._attend(queries, keys, values, runs, scratch).view(len(x), -1)
                h = self._product(a, layer.self_attn.o_proj, add=h)
                x = self._norm(h, layer.post_attention_layernorm.weight)
                gate = self._product(x, layer.mlp.gate_proj, swish=True)
                h = self._product(self._product(x, layer.mlp.up_proj, times=gate), layer.mlp.down_proj, add=h)
            h_BTM[rows] = h.view(-1, T, h.shape[-1])
        return h_BTM

    def _project(self, a: Any, x: Tensor, turn: tuple[Tensor, Tensor], keys: Tensor, values: Tensor) -> Tensor:
        """Queries (B, K, H/K, T, D). Writes the new columns, the last T, of keys and values (B, K, C, D)."""
        (cos, sin), (B, K, C, D) = turn, keys.shape
        T, H, linears = cos.shape[1], self.heads, (a.q_proj, a.k_proj, a.v_proj)
        weight = torch.cat([linear.weight for linear in linears])  # one wide product repays the copy
        bias = None if a.q_proj.bias is None else torch.cat([linear.bias for linear in linears])
        q, k, v = F.linear(x, weight, bias).view(B, T, H + 2 * K, D).split((H, K, K), 2)
        if hasattr(a, "q_norm"):  # Qwen3
            q, k = self._norm(q, a.q_norm.weight), self._norm(k, a.k_norm.weight)
        queries = q.new_empty(B, K, H // K, T, D)
        _rotate(q.unflatten(2, (K, -1)), cos[:, :, None], sin[:, :, None], queries.permute(0, 3, 1, 2, 4))
        _rotate(k, cos, sin, keys[:, :, C - T :].transpose(1, 2))
        values[:, :, C - T :] = v.transpose(1, 2)
        return queries

    def _attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, runs: list[_Run], scratch: tuple[Tensor, Tensor]
    ) -> Tensor:
        """(B, T, H, D). The query heads that share a key head are rows of one product."""
        B, K, G, T, D = queries.shape
        out = queries.new_empty(B, T, K, G, D)
        for run in runs:
            q = queries[:, :, :, run.low : run.high].reshape(B * K, -1, D)
            k, v = (run.columns_of(t) for t in (keys, values))
            n, C = run.bias.shape[2:]
            scores, chances = (t[: q.shape[0] * q.shape[1] * C].view(B * K, G * n, C) for t in scratch)
            scores.view(B, K * G, n, C).copy_(run.bias)
            torch.baddbmm(scores, q, k.transpose(1, 2), alpha=D**-0.5, out=scores)
            torch.softmax(scores, -1, out=chances)
            out[:, run.low : run.high] = torch.bmm(chances, v).view(B, K, G, n, D).permute(0, 3, 1, 2, 4)
        return out

    def _product(
        self,
        x: Tensor,
        linear: Any,
        *,
        add: Tensor | None = None,
        times: Tensor | None = None,
        swish: bool = False,
    ) -> Tensor:
        """linear(x), and then at most one of: plus `add`, times `times`, through SiLU."""
        weight, bias = linear.weight, linear.bias
        if self.rides:
            op: Any = torch.ops.mkldnn._linear_pointwise
            if add is not None or times is not None:
                other, how = (times, "mul") if add is None else (add, "add")
                both: Tensor = op.binary(x, other, weight, bias, how)
                return both
            alone: Tensor = op(x, weight, bias, "swish" if swish else "none", [], "")
            return alone
        y = F.linear(x, weight, bias)
        if add is not None or times is not None:
            return y.mul_(times) if add is None else y.add_(add)
        return F.silu(y, inplace=True) if swish else y

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """RMS norm of the last dimension, in float32 until the end."""
        wide = x.to(torch.float32, copy=True)
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(self.eps).rsqrt_()
        return wide.mul_(scale).mul_(weight.float()).to(self.dtype)


@dataclass(slots=True)
class _Run:
    """Neighbouring new tokens low..high and the columns that any of them sees."""

    low: int
    high: int
    columns: Tensor | None  # None: the first ones
    bias: Tensor  # (B, 1, high - low, columns), added to the scores

    def columns_of(self, x: Tensor) -> Tensor:
        """(B, K, C, D) → (B*K, columns, D)."""
        flat = x.view(-1, *x.shape[2:])
        return flat[:, : self.bias.shape[3]] if self.columns is None else flat.index_select(1, self.columns)


def _runs(mask_BTC: Tensor, dtype: torch.dtype) -> list[_Run]:
    """Of a label tree with a thousand nodes a node sees ten: scores for the others are not even computed."""
    T = mask_BTC.shape[1]
    count = max(1, round(T / RUN))
    bounds = [T * i // count for i in range(count + 1)]
    runs = []
    for low, high in pairwise(bounds):
        mask = mask_BTC[:, low:high]
        columns = mask.flatten(0, 1).any(0).nonzero().flatten()
        if len(columns) > GATHER * int(columns[-1] + 1):
            runs.append(_Run(low, high, None, additive(mask[:, :, : int(columns[-1]) + 1], dtype)))
        else:
            runs.append(_Run(low, high, columns, additive(mask[:, :, columns], dtype)))
    return runs


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """Rotary embedding of the last dimension of x; cos and sin hold half of it."""
    first, second = x.chunk(2, -1)
    a, b = out.chunk(2, -1)
    torch.mul(first, cos, out=a).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=b).addcmul_(first, sin)


def log_probabilities(hidden_NM: Tensor, head_VM: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
    """log P(tokens[i]) after hidden row places[i], in nats. Logits are rounded to the model's dtype and their
    exponents summed in float32, as if all of them were there at once."""
    found = torch.empty(len(tokens))
    for low in range(0, len(hidden_NM), HEAD_ROWS):
        part = hidden_NM[low : low + HEAD_ROWS]
        mine = ((places >= low) & (places < low + len(part))).nonzero().flatten()
        found[mine] = _part(part, head_VM, places[mine] - low, tokens[mine])
    return found


def _part(hidden_NM: Tensor, head_VM: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
    N, V = len(hidden_NM), len(head_VM)
    order = tokens.argsort(stable=True)
    bounds = torch.searchsorted(tokens[order], torch.arange(0, V + HEAD_COLUMNS, HEAD_COLUMNS)).tolist()
    picked, total_N = torch.empty(len(tokens)), torch.zeros(N)
    logits, wide = hidden_NM.new_empty(N, HEAD_COLUMNS), torch.empty(N, HEAD_COLUMNS)
    for i, low in enumerate(range(0, V, HEAD_COLUMNS)):
        weight = head_VM[low : low + HEAD_COLUMNS]
        if len(weight) < HEAD_COLUMNS:
            logits, wide = hidden_NM.new_empty(N, len(weight)), torch.empty(N, len(weight))
        torch.mm(hidden_NM, weight.T, out=logits)
        here = order[bounds[i] : bounds[i + 1]]
        if len(here):
            picked[here] = logits[places[here], tokens[here] - low].float()
        total_N += wide.copy_(logits).exp_().sum(-1)
    lost = (~((total_N > SAFE[0]) & (total_N < SAFE[1]))).nonzero().flatten()
    normaliser_N = total_N.log()
    if len(lost):
        normaliser_N[lost] = torch.cat([(r @ head_VM.T).float().logsumexp(-1) for r in hidden_NM[lost].split(8)])
    return picked - normaliser_N[places]


def _rides(dtype: torch.dtype) -> bool:
    """Whether torch's CPU library takes an activation or a sum along with a product."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtype is torch.float32 or (dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
