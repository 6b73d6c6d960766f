"""The weights of linear layers that read one input, as one matrix, whatever is trained of them.

full    the matrix is the layers' own weights, or their copy in bf16, made anew before each use
lora    their updates are further columns of the same product: [x | xA'] [W | sB]'
qlora   as lora; W is made from its codes before each use, in a buffer that layers of one shape share
dora    the product's rows scaled to trained lengths

One product rounds once. In bf16 a separate sum loses every update smaller than half a step of the base
product's grid, and training starts a step late.

Shapes: T rows, `inputs` and outputs of the fused layer, R adapter columns, r of one adapter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(slots=True)
class Update:
    """One adapter of one layer."""

    rows: slice  # of the output
    ranks: slice  # of the adapter columns
    scale: float
    a: Tensor  # [r, in]
    b: Tensor  # [out, r]
    trained: bool  # pissa and olora subtract a frozen start

    @property
    def delta(self) -> Tensor:
        """[out, in], float32."""
        return (self.b.detach().float() @ self.a.detach().float()).mul_(self.scale)


class Projection:
    """See above. `buffers` are shared by all projections of a model.

    Plain weights of the product's own type become views of the fused matrix, so nothing is held twice and the
    plain forward still works.
    """

    def __init__(self, layers: list[Any], dtype: torch.dtype, buffers: dict[tuple[int, int], Tensor]):
        self.bases = [getattr(layer, "base_layer", layer) for layer in layers]
        self.inputs: int = self.bases[0].in_features
        self.parts: list[slice] = []  # rows of each layer
        self.updates: list[Update] = []
        out = rank = 0
        for layer, base in zip(layers, self.bases, strict=True):
            rows = slice(out, out + base.out_features)
            self.parts.append(rows)
            out = rows.stop
            for name in adapters(layer):
                a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
                ranks = slice(rank, rank + a.shape[0])
                rank = ranks.stop
                self.updates.append(
                    Update(rows=rows, ranks=ranks, scale=layer.scaling[name], a=a, b=b, trained=a.requires_grad)
                )
        self.outputs, self.ranks, self.dtype = out, rank, dtype
        self.down = torch.zeros(rank, self.inputs, dtype=dtype, device=self.bases[0].weight.device)
        self.weights = [b.weight for b in self.bases]  # trained ones are the optimizer's
        self.learns = [bool(w.requires_grad) for w in self.weights]
        self.lengths = [dora_length(layer) for layer in layers]
        self._held = self._hold(buffers)
        self._inverse: Tensor | None = None
        self._factor: Tensor | None = None
        self._bias: Tensor | None = None

    def _hold(self, buffers: dict[tuple[int, int], Tensor]) -> Tensor | None:
        """[outputs, inputs + R] with W in it; None where W is not kept."""
        self._buffers = buffers
        self._copied = any(w.dtype != self.dtype for w in self.weights) and not self.quantized
        if self.quantized:
            return None
        wide = torch.zeros(self.outputs, self.width, dtype=self.dtype, device=self.down.device)
        for rows, base in zip(self.parts, self.bases, strict=True):
            view = wide[rows, : self.inputs]
            view.copy_(base.weight.detach())
            if not self._copied:
                base.weight.data = view
        return wide

    @property
    def quantized(self) -> bool:
        return hasattr(self.bases[0], "dequantized")

    @property
    def width(self) -> int:
        return self.inputs + self.ranks

    @property
    def trained(self) -> list[Tensor]:
        """In the order in which `backward` gives their gradients."""
        return [
            *(w for w, learns in zip(self.weights, self.learns, strict=True) if learns),
            *(b.bias for b in self.bases if b.bias is not None and b.bias.requires_grad),
            *(t for u in self.updates if u.trained for t in (u.a, u.b)),
            *(length for length in self.lengths if length is not None),
        ]

    @torch.no_grad()  # type: ignore[untyped-decorator]  # torch is untyped here
    def refresh(self) -> None:
        """Take over what the optimizer changed. Before each forward; `backward` reads the same values."""
        for u in self.updates:
            self.down[u.ranks] = u.a
        if self._held is not None:
            self._fill(self._held, base=False)
        if self.bases[0].bias is not None:
            self._bias = torch.cat([base.bias.detach() for base in self.bases]).to(self.dtype)
        if any(length is not None for length in self.lengths):
            self._scale_rows()

    def _fill(self, wide: Tensor, *, base: bool) -> None:
        if base:
            wide[:, self.inputs :] = 0  # another layer's adapters
        for rows, layer, learns in zip(self.parts, self.bases, self.learns, strict=True):
            if base:
                layer.dequantized_into(wide[rows, : self.inputs])
            elif learns and self._copied:
                wide[rows, : self.inputs] = layer.weight
        for u in self.updates:
            wide[u.rows, self.inputs + u.ranks.start : self.inputs + u.ranks.stop] = u.b * u.scale

    def _wide(self) -> Tensor:
        if self._held is not None:
            return self._held
        shape = (self.outputs, self.width)
        if shape not in self._buffers:
            self._buffers[shape] = torch.empty(shape, dtype=self.dtype, device=self.down.device)
        self._fill(self._buffers[shape], base=True)
        return self._buffers[shape]

    def _scale_rows(self) -> None:
        """m / |W + sBA| of each row; |..| counts as a constant for the gradient, as in the paper's section 4.3."""
        wide = self._wide()
        self._inverse = torch.ones(self.outputs, device=wide.device)
        self._factor = torch.ones(self.outputs, device=wide.device)
        for rows, length in zip(self.parts, self.lengths, strict=True):
            if length is not None:
                whole = wide[rows, : self.inputs].float()
                for u in self.updates:
                    if u.rows == rows:
                        whole = whole + u.delta
                self._inverse[rows] = 1 / torch.linalg.norm(whole, dim=1)
                self._factor[rows] = self._inverse[rows] * length.view(-1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x [T, inputs + R], whose last R columns are filled here → ([T, outputs], what `backward` wants back)."""
        if self.ranks:
            torch.mm(x[:, : self.inputs], self.down.T, out=x[:, self.inputs :])
        wide = self._wide()
        if self._factor is None:
            return (x @ wide.T if self._bias is None else torch.addmm(self._bias, x, wide.T)), None
        unscaled = x @ wide.T
        y = unscaled * self._factor.to(self.dtype)
        return (y if self._bias is None else y.add_(self._bias)), unscaled

    def backward(
        self, grad: Tensor, x: Tensor, unscaled: Tensor | None, *, need_input: bool
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Gradients of the input [T, inputs] and of `trained`, in that order, float32 for the latter."""
        of_weights = self._of_weights(grad, x)
        of_biases, of_lengths = self._of_biases(grad), []
        if self._factor is not None:
            assert unscaled is not None
            of_lengths = self._of_lengths(grad, unscaled)
            grad = grad * self._factor.to(self.dtype)
        if not need_input and not any(u.trained for u in self.updates):
            return None, [*of_weights, *of_biases, *of_lengths]
        wide = self._wide()
        if need_input:
            both = grad @ wide
            d_input, d_rank = both[:, : self.inputs], both[:, self.inputs :]
        else:
            d_input, d_rank = None, grad @ wide[:, self.inputs :]
        of_updates: list[Tensor] = []
        if any(u.trained for u in self.updates):
            d_down = (d_rank.T @ x[:, : self.inputs]).float()
            for u in self.updates:
                if u.trained:
                    columns = slice(self.inputs + u.ranks.start, self.inputs + u.ranks.stop)
                    d_b = (grad[:, u.rows].T @ x[:, columns]).float()
                    of_updates += [d_down[u.ranks], d_b.mul_(u.scale)]
        if d_input is not None and self.ranks:
            d_input = torch.addmm(d_input, d_rank, self.down)
        return d_input, [*of_weights, *of_biases, *of_updates, *of_lengths]

    def _of_weights(self, grad: Tensor, x: Tensor) -> list[Tensor]:
        x = x[:, : self.inputs]
        if all(self.learns):
            whole = (grad.T @ x).float()
            return [whole[rows] for rows in self.parts]
        return [(grad[:, rows].T @ x).float() for rows, learns in zip(self.parts, self.learns, strict=True) if learns]

    def _of_biases(self, grad: Tensor) -> list[Tensor]:
        chosen = [r for r, b in zip(self.parts, self.bases, strict=True) if b.bias is not None and b.bias.requires_grad]
        return [grad[:, rows].sum(0, dtype=torch.float32) for rows in chosen]

    def _of_lengths(self, grad: Tensor, unscaled: Tensor) -> list[Tensor]:
        assert self._inverse is not None
        pull = (grad * unscaled).sum(0, dtype=torch.float32) * self._inverse
        return [
            pull[rows].view_as(length)
            for rows, length in zip(self.parts, self.lengths, strict=True)
            if length is not None
        ]


def adapters(layer: Any) -> list[str]:
    """PEFT's names of the active adapters of a linear layer; none for a plain one."""
    return [n for n in layer.active_adapters if n in layer.lora_A] if hasattr(layer, "lora_A") else []


def dora_length(layer: Any) -> nn.Parameter | None:
    """[outputs] the trained lengths of DoRA."""
    if "default" not in (getattr(layer, "lora_magnitude_vector", None) or {}):
        return None
    found: nn.Parameter = layer.lora_magnitude_vector["default"].weight
    return found
