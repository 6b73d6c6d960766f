"""One wrapped module with its bottleneck adapters: y + s · W_up f(W_down x + b_down) + s · b_up.

x is the module's own output y (sequential placements), or what entered the module or a part of it (parallel).
Source: Houlsby et al. 2019, arXiv:1902.00751, figure 2; Pfeiffer et al. 2020, arXiv:2005.00052, section 3;
He et al. 2022, arXiv:2110.04366, table 1. Dropout is on the update, as in the `adapters` library.

Shapes: B rows, T tokens, M width of the residual stream, R width of the bottleneck.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from tunesmith.core.errors import ModelError

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu, "tanh": torch.tanh}
BASE = "__base__"  # PEFT's name for "no adapter" in a mixed batch


def refuse_merge() -> NoReturn:
    raise ModelError(
        "bottleneck adapters cannot be merged: their activation makes the update depend on the input, so no weights "
        "of the base's shape give the same outputs",
        fix="serve the adapter beside its base, or train LoRA where one plain model (GGUF, GPTQ) is needed",
    )


class BottleneckLayer(nn.Module, BaseTunerLayer):  # type: ignore[misc]  # torch and peft are untyped here
    """Any module whose output is a tensor, or a tuple that starts with one. Several active adapters add up."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("bottleneck_dropout", "scaling", "activation", "reads")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: Any, width: int | None) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = _sizes(self.get_base_layer(), width)
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self.bottleneck_dropout = nn.ModuleDict()
        self.scaling: dict[str, float] = {}
        self.activation: dict[str, str] = {}
        self.reads: dict[str, str | None] = {}  # None: the output; "": the input; else the input of that part
        self.merged_adapters: list[str] = []
        self.batch_names: Sequence[str] | None = None  # set for the length of a mixed batch's forward
        self._disable_adapters = False
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: Any) -> None:
        """Add an adapter. It starts as a change of nothing, unless config.init_weights is False (for tests)."""
        read_size = self.in_features if config.reads is not None and config.reads == "" else self.out_features
        down = nn.Linear(read_size, config.width_for(self.out_features))
        up = nn.Linear(down.out_features, self.out_features)
        self.bottleneck_down[adapter_name], self.bottleneck_up[adapter_name] = down, up
        self.bottleneck_dropout[adapter_name] = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.scaling[adapter_name] = config.scaling
        self.activation[adapter_name] = config.activation
        self.reads[adapter_name] = config.reads
        if config.init_weights:
            self.reset(adapter_name)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def reset(self, adapter_name: str, generator: torch.Generator | None = None) -> None:
        """Down uniform as torch's linear layers, up and both biases zero (He et al. 2022): the base's own outputs."""
        down, up = self.bottleneck_down[adapter_name], self.bottleneck_up[adapter_name]
        nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5), generator=generator)
        for tensor in (down.bias, up.weight, up.bias):
            nn.init.zeros_(tensor)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        names = [n for n in self.active_adapters if n in self.bottleneck_down]
        if self.disable_adapters or (not names and self.batch_names is None):
            return self.base_layer(*args, **kwargs)
        shares = [(n, None) for n in names] if self.batch_names is None else self._rows(self.batch_names)
        with self._hearing({self.reads[n] for n, _ in shares}) as heard:
            result = self.base_layer(*args, **kwargs)
        heard[None] = result[0] if isinstance(result, tuple) else result
        out = heard[None]
        if out.requires_grad and not all(t.requires_grad for t in heard.values()):
            raise ModelError(  # its gradient would be lost without a word
                "a parallel adapter reads inside its layer, which reentrant checkpointing runs without gradients",
                fix="use gradient checkpointing with use_reentrant=False",
            )
        for name, items in shares:
            out = self._add(name, out, heard[self.reads[name]], items)
        return (out, *result[1:]) if isinstance(result, tuple) else out

    def _add(self, name: str, out: Tensor, read: Tensor, items: list[int] | None) -> Tensor:
        """`out` with the adapter's update of all rows, or of the batch's `items` alone."""
        read = read.reshape(*out.shape[:-1], -1)  # OPT flattens rows and tokens before its second norm
        if items is None:
            return out + self.update(name, read).to(out.dtype)
        assert self.batch_names is not None
        if len(out) % len(self.batch_names):
            raise ModelError(f"{len(self.batch_names)} adapter names for {len(out)} rows", fix="give one for each row")
        each = len(out) // len(self.batch_names)  # more than 1 where a model flattens rows and tokens (OPT)
        rows = torch.tensor([each * i + k for i in items for k in range(each)], device=out.device)
        return out.index_add(0, rows, self.update(name, read.index_select(0, rows)).to(out.dtype))

    def update(self, name: str, x: Tensor) -> Tensor:
        """(..., M) → (..., M) in the adapter's dtype."""
        down, up = self.bottleneck_down[name], self.bottleneck_up[name]
        x = self._cast_input_dtype(x, down.weight.dtype)
        update: Tensor = up(ACTIVATIONS[self.activation[name]](down(x))) * self.scaling[name]
        return self.bottleneck_dropout[name](update)

    def _rows(self, batch_names: Sequence[str]) -> list[tuple[str, list[int] | None]]:
        """Each adapter that this module has, in name order, with the places of its items in the batch."""
        wanted = sorted({n for n in batch_names if n != BASE and n in self.bottleneck_down})
        return [(n, [i for i, b in enumerate(batch_names) if b == n]) for n in wanted]

    @contextmanager
    def _hearing(self, reads: set[str | None]) -> Iterator[dict[str | None, Tensor]]:
        """Inside, the inputs of the named parts of the wrapped module are written down as they come."""
        heard: dict[str | None, Tensor] = {}

        def listen(part: str) -> Any:
            def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                heard[part] = args[0] if args else next(iter(kwargs.values()))

            return hook

        parts = {part: self.base_layer.get_submodule(part) for part in reads if part is not None}
        handles = [m.register_forward_pre_hook(listen(part), with_kwargs=True) for part, m in parts.items()]
        try:
            yield heard
        finally:
            for handle in handles:
                handle.remove()

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        refuse_merge()

    def unmerge(self) -> None:
        refuse_merge()

    def _get_base_layer_device_and_dtype(self, base_layer: nn.Module) -> tuple[Any, Any]:
        found = next(base_layer.parameters(), None)  # a decoder layer has no weight of its own
        return (None, None) if found is None else (found.device, found.dtype)

    def __getattr__(self, name: str) -> Any:
        """What callers ask of the wrapped module, such as a decoder layer's attention_type."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":  # not set yet
                raise
            return getattr(super().__getattr__("base_layer"), name)


def _sizes(base: nn.Module, width: int | None) -> tuple[int, int]:
    """(of its input, of its output); `width` is the residual stream's, for modules that do not say."""
    if isinstance(base, nn.Linear):
        return base.in_features, base.out_features
    if isinstance(base, Conv1D):
        return base.weight.shape[0], base.weight.shape[1]
    if isinstance(base, nn.Embedding):
        return base.num_embeddings, base.embedding_dim
    if width is None:
        raise ModelError(f"a {type(base).__name__} does not say how wide its output is, nor does the model's config")
    return width, width
