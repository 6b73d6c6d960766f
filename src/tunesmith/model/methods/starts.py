"""Where A and B of a LoRA layer start, other than at random.

pissa   the largest singular values and vectors of W: Meng et al. 2024, arXiv:2404.02948, eq. 2 and 3
olora   the first columns of W's QR decomposition: Buyukakyuz 2024, arXiv:2406.01775, algorithm 1
eva     A spans the directions in which the layer's inputs vary most, B is 0: Paischer et al. 2024,
        arXiv:2410.07170. Deviation: every layer keeps its rank; the paper moves ranks between layers.

Signs are chosen so that the largest entry of a vector is positive: decompositions leave them open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from tunesmith.core.errors import InputError, Problem

EVA_TOKENS = 8192  # of the texts, a seeded choice, that the layers' inputs are taken from
EVA_BATCH = 512  # tokens read at a time


def from_weights(layers: Mapping[str, Any], init: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer name → (A0, B0) with s B0 A0 the part of W that they stand for (pissa), in fp32."""
    refuse_wide(_sizes(layers), init)
    pairs = {}
    for name, layer in layers.items():
        base = layer.get_base_layer()
        w = base.weight.detach().float()
        w = w.T if isinstance(base, Conv1D) else w  # [outputs, inputs]
        rank, scale = layer.r["default"], layer.scaling["default"]
        if init == "pissa":
            u, s, vh = torch.linalg.svd(w, full_matrices=False)
            sign = _signs(vh[:rank])
            root = (s[:rank] / scale).sqrt()
            a, b = vh[:rank] * (root * sign)[:, None], u[:, :rank] * (root * sign)
        else:
            q, r = torch.linalg.qr(w)
            sign = _signs(q[:, :rank].T)
            a, b = r[:rank] * sign[:, None], q[:, :rank] * sign
        pairs[name] = (a.contiguous(), b.contiguous())
    return pairs


def eva(model: Any, layers: Mapping[str, Any], texts: Sequence[Sequence[int]], *, seed: int) -> None:
    """Set each layer's A to the leading right singular vectors of its inputs on a seeded choice of `texts`."""
    if not texts:
        what = "eva starts from the inputs of the layers, and there are no texts to read"
        raise InputError(what, where="train.method.init", fix="use init: uniform")
    refuse_wide(_sizes(layers), "eva")
    found: dict[str, Tensor] = {}

    def watch(name: str, layer: Any) -> Any:
        def look(_: Any, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].detach().float().flatten(0, -2)
            rows = torch.cat((found[name], rows)) if name in found else rows
            _, s, vh = torch.linalg.svd(rows, full_matrices=False)
            keep = 2 * layer.r["default"]
            found[name] = s[:keep, None] * vh[:keep]

        return layer.register_forward_pre_hook(look)

    training = [m for m in model.modules() if m.training]
    model.eval()
    hooks = [watch(name, layer) for name, layer in layers.items()]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for text in _chosen(texts, seed):
                model(input_ids=torch.tensor([text], device=model.device), use_cache=False)
            few = {n: len(found[n]) for n, layer in layers.items() if len(found[n]) < layer.r["default"]}
            if few:
                name, count = next(iter(few.items()))
                what = f"the texts have only {count} tokens, fewer than the rank of {name}"
                raise InputError(what, where="train.method.init", fix="use init: uniform, or a smaller rank")
            for name, layer in layers.items():
                a = torch.nn.functional.normalize(found[name][: layer.r["default"]], dim=1)
                layer.lora_A["default"].weight.copy_(a * _signs(a)[:, None])
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True


def _chosen(texts: Sequence[Sequence[int]], seed: int) -> list[list[int]]:
    """Different texts in the order of a hash, until there are EVA_TOKENS tokens; at most EVA_BATCH of each."""

    def place(ids: tuple[int, ...]) -> bytes:
        return hashlib.sha256(f"eva:{seed}:{ids}".encode()).digest()

    chosen: list[list[int]] = []
    tokens = 0
    for ids in sorted({tuple(t) for t in texts}, key=place):
        if tokens >= EVA_TOKENS:
            break
        chosen.append(list(ids[:EVA_BATCH]))
        tokens += len(chosen[-1])
    return chosen


def _signs(vectors: Tensor) -> Tensor:
    """Per row, the sign of its largest entry: 1 or -1."""
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))[:, 0]
    return torch.where(largest < 0, -1.0, 1.0)


def refuse_wide(layers: Mapping[str, tuple[int, int, int]], init: str) -> None:
    """`layers`: name → (rank, inputs, outputs). Raises InputError for a rank that has not so many directions."""
    problems = []
    for name, (rank, inputs, outputs) in layers.items():
        most = inputs if init == "eva" else min(inputs, outputs)
        if rank > most:
            what = f"{init} has only {most} directions in {name.removeprefix('base_model.model.')}"
            fix = f"a rank of at most {most} there (ranks), or init: uniform"
            problems.append(Problem(where=f"train.method.rank: {rank}", what=what, fix=fix))
    if problems:
        raise InputError(problems)


def _sizes(layers: Mapping[str, Any]) -> dict[str, tuple[int, int, int]]:
    return {n: (m.r["default"], m.in_features, m.out_features) for n, m in layers.items()}
