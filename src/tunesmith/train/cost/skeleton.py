"""A base model's shapes, from its config.json alone: everything the planner counts is counted from these.

The architecture is built on torch's meta device, which holds no numbers, so that every family that transformers has
is exact. A Skeleton itself is plain values: it is remembered as a fact, and reading it again loads no torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from tunesmith.core.canonical import plain
from tunesmith.core.errors import InputError, ModelError

PLACEMENTS = ("houlsby", "pfeiffer", "parallel")
FLAT = ("llama", "mistral", "qwen2", "qwen3")  # as in model/flat.py, which loads torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """One linear map: `inputs` numbers to `outputs`."""

    name: str
    inputs: int
    outputs: int
    bias: bool
    quantizable: bool
    conv: bool = False  # GPT-2's layers, whose weights are stored the other way round


@dataclass(frozen=True, slots=True, kw_only=True)
class Skeleton:
    family: str
    weights: dict[str, int]  # every parameter's size by name; a tied one once
    linears: tuple[Linear, ...]  # all but the output head
    embedding: int  # width of the input embeddings
    head: int  # width of the output head's rows; 0: they are the embeddings'
    hidden: int
    layers: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    stack: str  # name of the list of layers
    stack_size: int  # of the longest list of modules, which is what last:N counts
    cache: tuple[int, int, int] | None  # layers, heads and head size of keys and values; None: it keeps other things
    refused: dict[str, str]  # a method or placement the architecture cannot take, and why
    ia3: tuple[tuple[str, ...], tuple[str, ...]]  # names of the scaled layers, and those whose inputs are

    @property
    def count(self) -> int:
        return sum(self.weights.values())

    @property
    def inner(self) -> int:
        """Width between the feed-forward's two maps."""
        wide = [x.outputs for x in self.linears if x.inputs == self.hidden and x.outputs != self.vocabulary]
        return max(wide, default=4 * self.hidden)


def to_json(skeleton: Skeleton) -> dict[str, Any]:
    return dict(plain(skeleton))


def from_json(value: dict[str, Any]) -> Skeleton:
    return msgspec.convert(value, Skeleton)


def skeleton_of(config: dict[str, Any]) -> Skeleton:
    """Loads torch. Raises ModelError for an architecture that transformers does not have."""
    return _skeleton(json.dumps(config, sort_keys=True))


@lru_cache(maxsize=8)
def _skeleton(said: str) -> Skeleton:
    config = json.loads(said)
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    from tunesmith.model.load import quiet
    from tunesmith.model.methods import qlora
    from tunesmith.model.methods.targets import linear_layers

    values = {k: v for k, v in config.items() if k not in ("dtype", "torch_dtype", "quantization_config")}
    try:
        with quiet(), torch.device("meta"):
            made = AutoConfig.for_model(**values)
            model = AutoModelForCausalLM.from_config(made, dtype=torch.float32)
    except (ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as e:
        first = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
        raise ModelError(f"no model can be counted from it: {first}", where="config.json") from e
    text: Any = made.get_text_config(decoder=True)
    layers = linear_layers(model)
    lists = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.ModuleList)}
    stack = max(lists, key=lambda n: len(lists[n]), default="")
    heads = text.num_attention_heads
    cache, refused = _cache(model)
    refused |= _placements(model)
    ia3 = _ia3(model, refused)
    return Skeleton(
        family=made.model_type,
        weights={n: p.numel() for n, p in model.named_parameters()},
        linears=tuple(
            Linear(
                name=n,
                inputs=m.weight.shape[0] if isinstance(m, Conv1D) else m.in_features,
                outputs=m.weight.shape[1] if isinstance(m, Conv1D) else m.out_features,
                bias=m.bias is not None,
                quantizable=type(m).__name__ in qlora.PRODUCTS,
                conv=isinstance(m, Conv1D),
            )
            for n, m in layers.items()
        ),
        embedding=model.get_input_embeddings().weight.shape[1],
        head=0 if _tied(model) else model.get_output_embeddings().weight.shape[1],
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=heads,
        key_heads=cache[1] if cache else getattr(text, "num_key_value_heads", None) or heads,
        head_size=cache[2] if cache else getattr(text, "head_dim", None) or text.hidden_size // heads,
        vocabulary=model.get_output_embeddings().weight.shape[0],
        stack=stack,
        stack_size=len(lists[stack]) if lists else 0,
        cache=cache,
        refused=refused,
        ia3=ia3,
    )


def _tied(model: Any) -> bool:
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def _cache(model: Any) -> tuple[tuple[int, int, int] | None, dict[str, str]]:
    """What one token leaves in the cache, as prefix tuning needs it."""
    from tunesmith.model.methods import prompts

    words = model.get_input_embeddings().weight[:1][None].detach()
    try:
        found = [tuple(k.shape) for k, _ in prompts._keys_values(model.eval(), words)]
    except (InputError, NotImplementedError) as e:
        why = str(e).splitlines()[0]
        return None, dict.fromkeys(("prompt", "p_tuning", "prefix"), why)
    if len(set(found)) != 1:
        return None, dict.fromkeys(("prompt", "p_tuning", "prefix"), "its layers keep keys of different shapes")
    return (len(found), found[0][1], found[0][3]), {}


def _placements(model: Any) -> dict[str, str]:
    from tunesmith.model.methods import bottleneck
    from tunesmith.model.methods.spec import MethodSpec

    found = {}
    for placement in PLACEMENTS:
        spec = MethodSpec(
            kind="bottleneck", rank=8, alpha=1.0, dropout=0.0, targets="all-linear",
            placement=placement, activation="relu",
        )  # fmt: skip
        try:
            bottleneck.config_for(model, spec)
        except InputError as e:
            found[placement] = str(e.problems[0].what)
    return found


def _ia3(model: Any, refused: dict[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from tunesmith.model.methods import ia3

    try:
        chosen, inner = ia3._layers(model, "all-linear")
    except InputError as e:
        refused["ia3"] = str(e.problems[0].what)
        return (), ()
    return tuple(chosen), tuple(inner)
