"""How many weights a method trains, and how many bytes its frozen base takes. Exact: a test holds it against the
real wrapped models of nine families. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from tunesmith.core.errors import InputError
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.train.cost.skeleton import Linear, Skeleton

BLOCK = 64  # weights that share a scale in 4 bits, as in model/methods/quantized.py, which loads bitsandbytes
SCALES = 256  # scales that share one of their own, with double quantization


def refusal(skeleton: Skeleton, method: MethodSpec) -> str:
    """Why this architecture cannot take the method; "" where it can."""
    if method.kind == "qlora":
        wrong = sorted({x.name.rsplit(".", 1)[-1] for x in skeleton.linears if not x.quantizable})
        return f"its layers {', '.join(wrong)} cannot be quantized" if wrong else ""
    if method.kind == "bottleneck":
        return skeleton.refused.get(method.placement, "")
    return skeleton.refused.get(method.kind, "")


def trained_count(skeleton: Skeleton, method: MethodSpec) -> int:
    """Weights that gradients are made for. Raises InputError for a method that the architecture cannot take."""
    if why := refusal(skeleton, method):
        raise InputError(why, where=f"train.method.kind: {method.kind}", fix="tunesmith plan --methods")
    match method.kind:
        case "full":
            return sum(skeleton.weights[n] for n in trained_names(skeleton, method.train_layers))
        case "lora" | "qlora":
            return _lora(skeleton, method)
        case "ia3":
            return _ia3(skeleton, method)
        case "bottleneck":
            width = max(1, int(skeleton.hidden / method.reduction)) if method.reduction else method.rank
            each = 2 * width * skeleton.hidden + width + skeleton.hidden
            return skeleton.layers * each * (2 if method.placement == "houlsby" else 1)
        case "prompt":
            return method.virtual_tokens * skeleton.embedding
        case "p_tuning":
            m, p = skeleton.embedding, method.projection
            return method.virtual_tokens * m + (m * p + p) + (p * p + p) + (p * m + m)
        case "prefix":
            return _prefix(skeleton, method)


def new_rows(skeleton: Skeleton, new_tokens: int) -> int:
    """Weights of so many new tokens' rows: of the embedding, and of a head that is not tied to it. Adapters train them
    beside their own; of full fine-tuning they are all that the model grows by, or less where its vocabulary has
    unused rows (which a config does not say)."""
    return new_tokens * (skeleton.embedding + skeleton.head)


def base_bytes(skeleton: Skeleton, method: MethodSpec, bytes_each: int) -> int:
    """Of all weights that are not the method's own, with `bytes_each` for one that is not quantized.

    4 bits: half a byte, and a scale in fp32 for each 64 weights, or with double quantization in 8 bits with an
    fp32 scale for each 256 of them (Dettmers et al. 2023, arXiv:2305.14314, section 3). 8 bits: a byte, and an fp32
    scale a row.
    """
    if method.kind != "qlora":
        return skeleton.count * bytes_each
    inside = sum(x.inputs * x.outputs for x in skeleton.linears)
    outputs = sum(x.outputs for x in skeleton.linears)
    if method.bits == 8:
        small = inside + 4 * outputs
    else:
        scales = inside / BLOCK
        small = round(inside / 2 + (scales + 4 * scales / SCALES if method.double_quant else 4 * scales))
    return small + (skeleton.count - inside) * bytes_each


def targeted(skeleton: Skeleton, targets: str | tuple[str, ...]) -> list[Linear]:
    """The linear maps that an adapter goes on, as model/methods/targets.py chooses them."""
    if targets == "all-linear":
        names = {x.name.rsplit(".", 1)[-1] for x in skeleton.linears}
    else:
        names = {targets} if isinstance(targets, str) else set(targets)
    return [x for x in skeleton.linears if any(x.name == n or x.name.endswith(f".{n}") for n in names)]


def trained_names(skeleton: Skeleton, layers: str | tuple[str, ...]) -> list[str]:
    """Of full fine-tuning, as model/methods/full.py chooses them."""
    names = list(skeleton.weights)
    if layers == "all":
        return names
    if isinstance(layers, str):
        count = int(layers.removeprefix("last:"))
        size = skeleton.stack_size
        starts = tuple(f"{skeleton.stack}.{i}." for i in range(size - min(count, size), size))
        return [n for n in names if n.startswith(starts)]
    return [n for n in names if any(_fits(p, n) for p in layers)]


def _lora(skeleton: Skeleton, method: MethodSpec) -> int:
    total = 0
    for x in targeted(skeleton, method.targets):
        rank = next((r for pattern, r in method.ranks if _fits(pattern, x.name)), method.rank)
        total += rank * (x.inputs + x.outputs) + (x.outputs if method.dora else 0)
    return total


def _ia3(skeleton: Skeleton, method: MethodSpec) -> int:
    chosen, inner = skeleton.ia3
    if method.targets != "all-linear":
        chosen = tuple(n.rsplit(".", 1)[-1] for n in _names(targeted(skeleton, method.targets)))
        inner = tuple(n for n in chosen if n in skeleton.ia3[1])
    total = 0
    for x in skeleton.linears:
        if _ends(x.name, chosen):
            total += x.inputs if _ends(x.name, inner) else x.outputs
    return total


def _prefix(skeleton: Skeleton, method: MethodSpec) -> int:
    assert skeleton.cache is not None
    layers, heads, size = skeleton.cache
    width, made = heads * size, 2 * layers * heads * size
    if not method.projection:
        return method.virtual_tokens * made
    p = method.projection
    return method.virtual_tokens * width + (width * p + p) + (p * made + made)


def _names(linears: Iterable[Linear]) -> list[str]:
    return [x.name for x in linears]


def _ends(name: str, last: Iterable[str]) -> bool:
    return any(name == n or name.endswith(f".{n}") for n in last)


def _fits(pattern: str, name: str) -> bool:
    """As model/methods/targets.py, which loads torch."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
