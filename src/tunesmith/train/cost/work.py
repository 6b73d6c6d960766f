"""How much arithmetic a training is, and from that its time, energy and money. Loads no torch.

Products alone are counted, 2 operations for each weight and token: forward once, the gradient of the activations
once, the gradient of the trained weights once more; computed twice where layers are checkpointed. Attention adds
what its scores cost. Every figure for a device that was not measured is "computed": peak rate times a share of it.

The share, 25 to 45 %, is the range that MosaicML measured on H100s in bf16 (26 to 46 % of the dense peak, models of
0.76 to 70 billion weights, 512 to 65,536 tokens: mosaicml/llm-foundry, scripts/train/benchmarking/README.md; Llama 3
reports 38 to 43 %, arXiv:2407.21783, table 4). The same table has 43 to 64 % on A100s, so there the time is rather
less than computed. These were pre-trainings with full batches. That fine-tuning one model on one GPU reaches as much is
our assumption: small models, short texts and small micro-batches reach less, and then it takes longer.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.model.methods.spec import MethodSpec
from tunesmith.train.cost import counting
from tunesmith.train.cost.devices import Gpu
from tunesmith.train.cost.memory import Load
from tunesmith.train.cost.skeleton import Skeleton

USED = (0.25, 0.45)  # share of a GPU's peak rate: see above
QUANTIZED = 1.3  # times as long, since weights are made again for each product: an assumption, no source
DRAWN = (0.6, 1.0)  # share of a GPU's power limit while it trains: an assumption, no source
OTHER_METHOD_UNSURE = 0.5  # more, of another method's time by its arithmetic alone: paths and kernels differ
MEASURED_UNSURE = 0.25  # of a time that rests on three measured steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A figure that lies between two."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.low * self.high) ** 0.5

    def times(self, factor: float) -> Span:
        return Span(low=self.low * factor, high=self.high * factor)

    def wider(self, share: float) -> Span:
        return Span(low=self.low / (1 + share), high=self.high * (1 + share))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one training on one device."""

    seconds: Span
    kwh: Span | None  # None: the power is not known
    money: Span | None
    basis: str  # "measured" or "computed", and from what


def flops_per_token(skeleton: Skeleton, method: MethodSpec, load: Load, *, checkpointing: bool) -> float:
    """Operations of one token of training, padding not counted."""
    products = sum(x.inputs * x.outputs for x in skeleton.linears)
    head = skeleton.hidden * skeleton.vocabulary * min(1.0, load.answers / load.tokens)
    attention = 2 * skeleton.layers * skeleton.heads * skeleton.head_size * load.tokens / 2  # causal: half is seen
    trained = counting.trained_count(skeleton, method)
    passes = 3 if checkpointing else 2
    own = (products if method.train_layers == "all" else trained) if method.kind == "full" else 3 * trained
    total = 2 * (passes * (products + head + attention) + own + (head if method.kind == "full" else 0))
    if method.kind in ("prompt", "p_tuning", "prefix"):
        total *= 1 + method.virtual_tokens / load.tokens
    return total * (QUANTIZED if method.kind == "qlora" else 1.0)


def on_gpu(gpu: Gpu, tokens: int, flops: float) -> Cost:
    """`tokens` of `flops` operations each. The price of an hour includes its energy."""
    peak = (gpu.bf16_tflops or gpu.fp32_tflops or 1.0) * 1e12
    seconds = Span(low=tokens * flops / (peak * USED[1]), high=tokens * flops / (peak * USED[0]))
    hours = seconds.times(1 / 3600)
    kwh = Span(low=hours.low * gpu.watts * DRAWN[0] / 1000, high=hours.high * gpu.watts * DRAWN[1] / 1000)
    number = "bf16" if gpu.bf16_tflops else "fp32"
    basis = f"computed: {USED[0]:.0%} to {USED[1]:.0%} of its {number} peak"
    return Cost(seconds=seconds, kwh=kwh, money=hours.times(gpu.price) if gpu.price else None, basis=basis)


def here(seconds: float, *, unsure: float, watts: float | None, energy_price: float, basis: str) -> Cost:
    """On this machine: the money is that of the energy, where its power is known."""
    span = Span(low=seconds / (1 + unsure), high=seconds * (1 + unsure))
    kwh = span.times(watts / 3.6e6) if watts else None
    return Cost(seconds=span, kwh=kwh, money=kwh.times(energy_price) if kwh else None, basis=basis)
