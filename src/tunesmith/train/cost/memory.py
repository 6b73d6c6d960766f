"""Memory of a training by part, in bytes, and how sure that is. Loads no torch, but for paths that saved.py counts.

weights      the frozen base, quantized where the method says so; of full fine-tuning, all weights in fp32
file         of the weights' file, what is in memory beside copies of its weights and beyond all else: the system
             counts its pages as ours and takes them back when memory is short
trained      the method's own weights, fp32
gradients    of the trained weights, fp32; where a step is one micro-batch, what they take beyond the activations, since
             the backward frees these as it makes those
optimizer    what it remembers of each trained weight, and what it makes of the largest one while it steps that
activations  what the backward keeps of the largest micro-batch, and the widest layer's own passing buffers
logits       at the supervised places, which alone have any, and their gradient
rows         the examples as token ids
holes        of glibc's heap on a CPU: what it has free between blocks that are kept, and can neither use nor return
program      the interpreter, torch and transformers
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunesmith.model.methods.spec import MethodSpec
from tunesmith.train.cost import counting
from tunesmith.train.cost.skeleton import FLAT, Skeleton
from tunesmith.train.optimizers.names import OPTIMIZERS

if TYPE_CHECKING:
    from tunesmith.train.cost.saved import Saved

KEPT_KEYS, BLOCK, TOGETHER = 512, 64, 128  # as in model/flat_attention.py and flat_layout.py, which load torch
LOGIT_ROWS = 256  # of logits that the flat path holds at a time, as in train/losses.py
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
HEAP = 1.15  # what the flat path's activations take of the heap, over their own bytes: blocks free and not given back
COPIED_BYTES = 4  # of a bf16 weight's number while an optimizer steps a copy of it
HOLES = 0.68  # of what the layers' forward makes: benchmarks/planner.py with and without another allocator
HOLES_BF16 = 2.7  # bytes of a bf16 weight whose gradients are summed in fp32, found in the same way
ROW_BYTES, TOKEN_BYTES = 2_000, 45  # an example in Python: its texts; an id, a flag and their places
PROGRAM = {"cpu": 520 << 20, "cuda": 800 << 20}  # on a GPU: its context and the libraries' work space
UNSURE = {
    "cpu": 0.10,
    "cuda": 0.20,
}  # share by which a counted sum may be off; the first as benchmarks/planner.py found


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What goes through the model at once: the largest micro-batch, and all rows in memory."""

    rows: int  # of the micro-batch
    tokens: int  # of its longest
    answers: int  # supervised tokens of a row
    all_rows: int
    all_tokens: int
    whole_step: bool = False  # no second micro-batch meets the first one's gradients

    @property
    def padded(self) -> int:
        return self.rows * self.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    parts: dict[str, int]  # bytes
    unsure: float  # share of the sum
    path: str  # the forward that was counted

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def needed(self) -> int:
        """Without what the system can take back."""
        return self.total - self.parts.get("file", 0)

    @property
    def low(self) -> int:
        return round(self.total * (1 - self.unsure))

    @property
    def high(self) -> int:
        return round(self.total * (1 + self.unsure))


def load_of(dataset: dict[str, Any], *, global_batch: int, micro_batch_tokens: int, virtual_tokens: int = 0) -> Load:
    """From dataset.json: as many of the longest rows as a micro-batch takes, all as long as the longest."""
    tokens, rows = dataset["tokens"], dataset["counts"]["train"]
    longest = max(1, int(tokens["longest"])) + virtual_tokens
    total = sum(dataset["counts"].values())
    answer = tokens.get("answer", {})
    step = max(1, min(global_batch, rows))
    together = max(1, min(step, micro_batch_tokens // longest))
    return Load(
        rows=together,
        tokens=longest,
        answers=max(1, round(answer.get("longest") or answer.get("mean") or 8)),
        all_rows=total,
        all_tokens=int(tokens["total"]),
        whole_step=together == step,
    )


def path_of(
    skeleton: Skeleton,
    method: MethodSpec,
    *,
    noisy: bool,
    checkpointing: bool | str,
    trained_in: str = "fp32",
    new_tokens: int = 0,
) -> str:
    """The forward that training will take, as model/flat_fit.py and train/forward.py choose it where the probe
    agrees."""
    fitting = method.kind in ("lora", "qlora", "full") and not method.dropout and trained_in == "fp32"
    fitting = fitting and (not new_tokens or method.kind == "full")  # whose rows are no parameter of their own
    return "flat" if skeleton.family in FLAT and fitting and not (noisy or checkpointing) else "plain"


def memory(
    config: dict[str, Any],
    skeleton: Skeleton,
    method: MethodSpec,
    load: Load,
    *,
    precision: str,
    optimizer: str,
    noisy: bool = False,
    checkpointing: bool | str = False,
    trained_in: str = "fp32",
    master: str = "fp32",
    device: str = "cpu",
    new_tokens: int = 0,
    glibc: bool = True,
) -> Memory:
    """Of a training's peak. `noisy`: NEFTune is on. `trained_in`: of full fine-tuning, and whether bf16 weights have a
    `master` copy in fp32 or steps rounded by chance. `glibc`: of a CPU, that its heap is glibc's. Raises InputError for
    a method the architecture cannot take."""
    full = method.kind == "full"
    rows = counting.new_rows(skeleton, new_tokens)
    trained = counting.trained_count(skeleton, method) + rows
    each = (2 if trained_in == "bf16" else 4) if full else 4 if precision == "fp32" else 2
    path = path_of(
        skeleton, method, noisy=noisy, checkpointing=checkpointing, trained_in=trained_in, new_tokens=new_tokens
    )
    flat = path == "flat"
    passing = OPTIMIZERS[optimizer].passing + (COPIED_BYTES if trained_in == "bf16" and master == "stochastic" else 0)
    holes = 0
    if flat:
        activations, logits = _flat(skeleton, method, load, 4 if precision == "fp32" else 2)
    else:
        autocast = full and precision == "bf16" and trained_in == "fp32"
        kept_in = trained_in if full else precision
        one = _saved(config, skeleton, method, load, kept_in, autocast)
        activations, logits = _plain(skeleton, method, load, kept_in, one, checkpointing)
        if device == "cpu" and glibc:
            holes = _holes(
                trained_layers(skeleton, method) * one.layer, activations, trained,
                checkpointing=bool(checkpointing), bf16_weights=full and trained_in == "bf16",
            )  # fmt: skip
    activations = round(activations * (HEAP if device == "cpu" and flat else 1.0))
    parts = {
        "weights": counting.base_bytes(skeleton, method, each)
        + each * rows
        + (_copies(skeleton, method, precision) if flat else 0),
        "trained": 0 if full else 4 * trained,
        "gradients": max(0, 4 * trained - activations) if load.whole_step else 4 * trained,
        "optimizer": round(OPTIMIZERS[optimizer].bytes_each * trained)
        + (4 * trained if full and trained_in == "bf16" and master == "fp32" else 0)
        + (passing * max(skeleton.weights.values()) if full else 0),
        "activations": activations,
        "logits": logits,
        "rows": load.all_rows * ROW_BYTES + load.all_tokens * TOKEN_BYTES if device == "cpu" else 0,
        "program": PROGRAM[device],
    }
    if device == "cpu":
        parts["holes"] = holes
        held = sum(v for n, v in parts.items() if n not in ("weights", "program", "trained"))
        parts["file"] = _file(config, skeleton, method, path, each, held)
    return Memory(parts=parts, unsure=UNSURE[device], path=path)


def _copies(s: Skeleton, method: MethodSpec, precision: str) -> int:
    """What the flat path holds besides the weights: A and B inside the base's matrices; a bf16 copy of weights that
    are trained in fp32; of quantized ones a buffer for each shape of fused product."""
    size = 2 if precision == "bf16" else 4
    inside = sum(x.inputs * x.outputs for x in s.linears)
    if method.kind == "full":
        return size * (inside + s.vocabulary * s.hidden) if precision == "bf16" else 0
    adapters = size * counting.trained_count(s, method)
    if method.kind == "qlora":
        query, key = s.heads * s.head_size, s.key_heads * s.head_size
        shapes = (s.hidden * (query + 2 * key), query * s.hidden, s.hidden * 2 * s.inner, s.inner * s.hidden)
        return adapters // 2 + size * sum(shapes)
    return adapters


def _file(config: dict[str, Any], skeleton: Skeleton, method: MethodSpec, path: str, each: int, held: int) -> int:
    """Weights that are used as they lie in the file are its own pages. Where they are copied (fused, quantized, cast)
    the whole file is in memory beside the copies until loading is done: that counts where it is more than `held`,
    what all else takes once training runs beyond the program and the weights. Off the flat path, a quantized model's
    embeddings keep the file, and the pages of the replaced weights stay."""
    stored = DTYPE_BYTES.get(str(config.get("dtype") or config.get("torch_dtype") or "float32"), 4)
    if path == "plain" and method.kind == "qlora" and stored == each:
        return stored * sum(x.inputs * x.outputs for x in skeleton.linears)
    copied = path == "flat" or method.kind == "qlora" or stored != each
    return max(0, stored * skeleton.count - held) if copied else 0


def _flat(s: Skeleton, method: MethodSpec, load: Load, size: int) -> tuple[int, int]:
    """(activations, logits) of model/flat.py: per layer two residual streams in fp32, the inputs of the four fused
    products with their adapters' columns, query, key, value and the attention's probabilities, gate and up."""
    query, key = s.heads * s.head_size, s.key_heads * s.head_size
    keys = (load.tokens + min(load.tokens, BLOCK)) // 2  # of a query, on average
    probabilities = s.heads * keys if load.tokens <= KEPT_KEYS else 0
    block = s.heads * min(load.tokens, BLOCK)  # in one block, for each row of the documents that attend together
    if load.tokens > TOGETHER:
        block //= load.rows
    inputs = s.hidden + query + s.hidden + s.inner + 7 * method.rank
    # with DoRA also what the four products gave, before each output is scaled
    before = sum(x.outputs for x in s.linears) // max(1, s.layers) if method.dora else 0
    kept = 8 * s.hidden + size * (before + inputs + query + 2 * key + probabilities + 2 * s.inner)
    passing = 16 * s.hidden + size * (6 * s.inner + 3 * block + 4 * query)
    layers = trained_layers(s, method)
    rows = min(LOGIT_ROWS, load.rows * load.answers)
    logits = rows * s.vocabulary * (4 + 2 * size) + 8 * load.rows * load.answers * s.hidden
    return load.padded * (layers * kept + passing), logits + _head_gradient(s, method)


def trained_layers(s: Skeleton, method: MethodSpec) -> int:
    """Layers from the lowest trained one on: nothing is kept below it."""
    if method.kind == "full" and str(method.train_layers).startswith("last:"):
        return min(s.layers, int(str(method.train_layers).removeprefix("last:")))
    return s.layers


def _saved(
    config: dict[str, Any], s: Skeleton, method: MethodSpec, load: Load, precision: str, autocast: bool
) -> Saved:
    """What autograd keeps of the micro-batch in the model's own forward."""
    from tunesmith.train.cost.saved import saved

    row = saved(  # of one: what is not of a row (angles of positions) is within 1 % of the rest
        config, method, dtype=precision,
        rows=1, tokens=load.tokens, supervised=load.answers, autocast=autocast,
    )  # fmt: skip
    return replace(row, layer=load.rows * row.layer, rest=load.rows * row.rest)


def _plain(
    s: Skeleton, method: MethodSpec, load: Load, precision: str, found: Saved, checkpointing: bool | str
) -> tuple[int, int]:
    """(activations, logits) of the model's own forward in `precision`."""
    supervised = load.rows * load.answers
    stream = load.padded * s.hidden * (4 if precision == "fp32" else 2)
    if checkpointing == "selective":  # what products and attention gave is kept
        outputs = sum(x.outputs for x in s.linears) // max(1, s.layers) + s.heads * s.head_size
        stream += stream // s.hidden * outputs
    kept = s.layers * stream + found.layer if checkpointing else trained_layers(s, method) * found.layer
    logits = min(found.rest, 3 * 4 * supervised * s.vocabulary)
    head = _head_gradient(s, method)
    return kept + (found.rest - logits) + found.layer // 2, logits + 2 * 4 * supervised * s.vocabulary + head


def _head_gradient(s: Skeleton, method: MethodSpec) -> int:
    """Of full fine-tuning where the head is the embeddings, before it joins theirs."""
    tied = s.head == 0
    return 4 * s.vocabulary * s.hidden if method.kind == "full" and method.train_layers == "all" and tied else 0


def _holes(made: int, activations: int, trained: int, *, checkpointing: bool, bf16_weights: bool) -> int:
    """`made`: by all layers' forward. What was given back of it lies between the inputs that checkpointing keeps;
    gradients of its size fill some. Gradients of bf16 weights leave holes of their own once they are added in fp32, which
    activations that outgrow the gradients fill."""
    if bf16_weights:
        return max(0, round(HOLES_BF16 * trained) - max(0, activations - 4 * trained))
    return max(0, round(HOLES * made) - 4 * trained) if checkpointing else 0
