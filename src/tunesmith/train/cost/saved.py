"""What a backward pass keeps of the forward, for any architecture and method: counted, without a number computed.

The model is built with one layer and with two out of fake tensors, which have shapes and no memory; the forward runs,
and autograd's own hook tells each tensor that it saves. The second layer's share counts for every further one.
Loads torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import MethodSpec

LAYER_NAMES = ("num_hidden_layers", "n_layer", "num_layers")
PER_LAYER = ("layer_types",)  # lists in a config with an entry for each layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """Bytes that are kept of a micro-batch. Linear in rows; `layer` is of one layer, `rest` of what is outside."""

    layer: int
    rest: int


def saved(
    config: dict[str, Any], method: MethodSpec, *, dtype: str, rows: int, tokens: int, supervised: int, autocast: bool
) -> Saved:
    """Of `rows` texts of `tokens` tokens, `supervised` of which have logits."""
    return _saved(json.dumps(config, sort_keys=True), method, dtype, rows, tokens, supervised, autocast)


@lru_cache(maxsize=64)
def _saved(text: str, method: MethodSpec, dtype: str, rows: int, tokens: int, supervised: int, autocast: bool) -> Saved:
    config = json.loads(text)
    one, two = (_bytes(_cut(config, n), _plain(method), dtype, rows, tokens, supervised, autocast) for n in (1, 2))
    return Saved(layer=max(0, two - one), rest=max(0, 2 * one - two))


def _cut(config: dict[str, Any], layers: int) -> dict[str, Any]:
    found = {k: v for k, v in config.items() if k not in ("dtype", "torch_dtype", "quantization_config")}
    for name in LAYER_NAMES:
        if name in found:
            found[name] = layers
    for name in PER_LAYER:
        if isinstance(found.get(name), list):
            found[name] = found[name][:layers]
    return found


def _plain(method: MethodSpec) -> MethodSpec:
    """The same adapters on a base that is not quantized: a quantized product keeps what a frozen one keeps. Starts
    from the base's numbers are left out, which have none here."""
    spec = replace(method, ranks=(), init="uniform")
    if method.kind == "qlora":
        spec = replace(spec, kind="lora", bits=0, double_quant=False)
    return replace(spec, train_layers="all")


def _bytes(
    config: dict[str, Any], method: MethodSpec, dtype: str, rows: int, tokens: int, supervised: int, autocast: bool
) -> int:
    from transformers import AutoConfig, AutoModelForCausalLM

    from tunesmith.model.load import DTYPES, quiet
    from tunesmith.train import losses
    from tunesmith.train.forward import _head_at

    kept: dict[int, int] = {}
    alive: list[Tensor] = []
    with quiet(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=DTYPES[dtype]).eval()
        wrapped = methods.wrap(model, method, seed=0)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:  # on the CPU in name: its attention keeps other things than that of the meta device
        own = {n: _fake(p) for n, p in (*wrapped.named_parameters(), *wrapped.named_buffers())}
        own_storages = {t.untyped_storage()._cdata for t in own.values()}

        def keep(tensor: Tensor) -> Tensor:
            key = tensor.untyped_storage()._cdata
            if key not in own_storages and key not in kept:
                kept[key] = tensor.untyped_storage().nbytes()
                alive.append(tensor)  # so that no other storage gets its key
            return tensor

        places = torch.arange(supervised)
        ids = torch.zeros(rows, tokens, dtype=torch.long)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
            _head_at(model.get_output_embeddings(), places),
            torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        ):
            arguments = {"input_ids": ids, "use_cache": False}
            logits = torch.func.functional_call(wrapped, own, (), arguments).logits[0].float()
            losses.nll_sum(logits, places, torch.ones(supervised))
    return sum(kept.values())


def _fake(tensor: Tensor) -> Tensor:
    """The same shape on a CPU, without memory."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu").requires_grad_(tensor.requires_grad)
