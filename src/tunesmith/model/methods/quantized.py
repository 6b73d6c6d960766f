"""Linear layers in 4 bits (NF4) or 8 (int8), on bitsandbytes' classes, so that PEFT knows them.

On a CPU the products are ours: bitsandbytes' layers there compute one way while training and another way in
evaluation, which also repacks the weights or rounds the inputs, so that a validation would measure a model
that is not the one trained. On other devices its own kernels run. Imports bitsandbytes.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import bitsandbytes as bnb
import torch
import torch.nn.functional as F
from bitsandbytes.nn.modules import Int8Params, Params4bit
from torch import Tensor, nn

BLOCK = 64  # weights that share a scale, in 4 bits
OUTLIER = 6.0  # inputs beyond it are not rounded in 8 bits, where inputs are: not on a CPU


class FourBits(bnb.nn.Linear4bit):  # type: ignore[misc]  # bitsandbytes is untyped
    """NF4: blocks of 64 weights, each scaled by its largest; with double quantization the scales are in 8 bits."""

    @classmethod
    def of(cls, layer: nn.Linear, *, double_quant: bool) -> FourBits:
        new = cls(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=layer.weight.dtype,
            compress_statistics=double_quant,
            quant_type="nf4",
            device="meta",
        )
        codes, state = _nf4(_rounded(layer.weight), double_quant=double_quant)
        state.dtype = layer.weight.dtype  # of the weights when they compute
        new.weight = Params4bit(
            codes,
            requires_grad=False,
            quant_state=state,
            blocksize=BLOCK,
            compress_statistics=double_quant,
            quant_type="nf4",
            bnb_quantized=True,
            module=new,
        )
        new.bias = layer.bias
        return new

    def forward(self, x: Tensor) -> Tensor:
        return _Product.apply(x, self) if x.device.type == "cpu" else super().forward(x)

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """[outputs, inputs]. Block by block: bitsandbytes 0.50.2 reads a block that spans two rows wrongly on a CPU."""
        state, size = copy.copy(self.weight.quant_state), self.in_features * self.out_features
        state.dtype = dtype
        state.shape = torch.Size((size // BLOCK, BLOCK) if size % BLOCK == 0 else (1, size))
        found: Tensor = bnb.functional.dequantize_4bit(self.weight.data, state)
        return found.view(self.out_features, self.in_features)

    def dequantized_into(self, out: Tensor) -> None:
        """The same into `out` [outputs, inputs], which need not be contiguous."""
        out.copy_(self.dequantized(out.dtype))

    def parts(self) -> list[Tensor]:
        state = self.weight.quant_state
        return [self.weight.data, state.absmax, *((state.offset, state.state2.absmax) if state.nested else ())]


class EightBits(bnb.nn.Linear8bitLt):  # type: ignore[misc]  # bitsandbytes is untyped
    """int8: each row scaled so that its largest weight is 127."""

    @classmethod
    def of(cls, layer: nn.Linear) -> EightBits:
        new = cls(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            has_fp16_weights=False,
            threshold=OUTLIER,
            device="meta",
        )
        weight = _rounded(layer.weight)
        largest = weight.abs().amax(1)
        codes = (weight * (127 / largest.clamp_min(torch.finfo(torch.float32).tiny))[:, None]).round().to(torch.int8)
        new.weight = Int8Params(codes, requires_grad=False, has_fp16_weights=False, CB=codes, SCB=largest)
        new.bias = layer.bias
        return new

    def forward(self, x: Tensor) -> Tensor:
        return _Product.apply(x, self) if x.device.type == "cpu" else super().forward(x)

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """[outputs, inputs]."""
        codes, largest = self.parts()
        return (codes.float() * (largest[:, None] / 127)).to(dtype)

    def dequantized_into(self, out: Tensor) -> None:
        """The same into `out` [outputs, inputs], which need not be contiguous."""
        codes, largest = self.parts()
        torch.mul(codes, largest[:, None] / 127, out=out)

    def parts(self) -> list[Tensor]:
        if self.weight.CB is not None:
            return [self.weight.CB, self.weight.SCB]
        return [self.state.CB, self.state.SCB]  # where bitsandbytes' own forward has moved them


class _Product(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """x Wᵀ + bias. W is made for the product and again for its gradient, and not kept between."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FourBits | EightBits) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.dequantized(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.layer.dequantized(grad.dtype), None


def layers(model: nn.Module) -> dict[str, FourBits | EightBits]:
    return {n: m for n, m in sorted(model.named_modules()) if isinstance(m, FourBits | EightBits)}


def plain_linear(layer: FourBits | EightBits) -> nn.Linear:
    """The fp32 layer that a quantized one stands for."""
    plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    plain.weight = nn.Parameter(layer.dequantized(torch.float32), requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.detach().float(), requires_grad=False)
    return plain.train(layer.training)


def content_hash(model: nn.Module) -> str:
    """SHA-256 over all codes and scales."""
    digest = hashlib.sha256()
    for layer in layers(model).values():
        for part in layer.parts():
            digest.update(part.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _nf4(weight: Tensor, *, double_quant: bool) -> tuple[Tensor, Any]:
    """(codes, two to a byte, and bitsandbytes' state): its own arithmetic, which on a CPU it would first compile, for
    seconds and 300 MiB."""
    lib = bnb.functional
    code = lib.get_4bit_type("nf4", device=weight.device)
    size = weight.numel()
    blocks = F.pad(weight.reshape(-1), (0, -size % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(1)
    shares = (blocks * (1 / scales.clamp(min=1e-38))[:, None]).clamp_(-1, 1)
    numbers = torch.bucketize(shares, (code[1:] + code[:-1]) / 2, out_int32=True).to(torch.uint8).view(-1)
    numbers = numbers[: size + size % 2]
    codes = ((numbers[::2] << 4) | numbers[1::2])[:, None]
    state = lib.QuantState(
        absmax=scales, shape=weight.shape, code=code, blocksize=BLOCK, quant_type="nf4", dtype=weight.dtype
    )
    if double_quant:
        state.nested, state.offset = True, scales.mean()
        state.absmax, state.state2 = lib.quantize_blockwise(scales - state.offset, blocksize=256)
    return codes, state


def _rounded(weight: Tensor) -> Tensor:
    """The same from a base in fp32 as from one in bf16."""
    return weight.detach().to(torch.bfloat16).float()
