"""Bottleneck adapters as a method of PEFT: what speaks PEFT (save, load, several, disable, mixed batch) speaks them.

Importing this module registers the method. PEFT keeps its methods in a closed enum and offers no way to add one,
so the member is put in by hand; tests/model/test_bottleneck_peft.py fails when PEFT or Python change that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from peft.config import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import PeftType, register_peft_method
from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.model.methods.bottleneck_layers import ACTIVATIONS, BASE, BottleneckLayer, refuse_merge

NAME = "BOTTLENECK"


@dataclass
class BottleneckConfig(PeftConfig):  # type: ignore[misc]  # peft is untyped here
    """adapter_config.json. Mutable and with defaults, as PEFT wants its configurations."""

    target_modules: list[str] | set[str] | str | None = None  # last parts of names, or one pattern for whole names
    exclude_modules: list[str] | set[str] | str | None = None
    width: int = 0  # of the bottleneck; 0: `reduction` decides
    reduction: float = 16.0  # the bottleneck is the module's output divided by it, at least 1
    activation: str = "relu"
    dropout: float = 0.0  # on the update, while training
    scaling: float = 1.0  # of the update
    reads: str | None = None  # what the adapter reads: null the module's output, "" its input, else a part's input
    init_weights: bool = True
    modules_to_save: list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = getattr(PeftType, NAME)
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)
        if self.activation not in ACTIVATIONS:
            raise ModelError(f"activation {self.activation!r} is not one of {', '.join(ACTIVATIONS)}")
        if self.width < 0 or (self.width == 0 and self.reduction <= 0):
            raise ModelError("a bottleneck needs a positive width or a positive reduction")

    def width_for(self, output: int) -> int:
        return self.width or max(1, int(output / self.reduction))


class BottleneckModel(BaseTuner):  # type: ignore[misc]  # peft is untyped here
    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}  # methods/bottleneck.py finds the places in the model

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """PEFT passes over whatever lies within an adapter's wrapper. Ours may be round a whole layer, where a further
        adapter has its places too, so such wrappers are taken off meanwhile: modules have the base's own names."""
        places = [p for p in _wrappers(model) if any(True for _ in p[2].base_layer.children())]
        self._aside = {id(wrapper.base_layer): wrapper for _, _, wrapper in places}
        trained = [(p, p.requires_grad) for _, _, wrapper in places for p in wrapper.parameters()]
        for parent, name, wrapper in places:
            setattr(parent, name, wrapper.base_layer)
        try:
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        finally:
            for parent, name, wrapper in places:
                setattr(parent, name, wrapper)
            self._aside = {}
            for parameter, requires_grad in trained:
                parameter.requires_grad = requires_grad

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        wrapper = self._aside.get(id(target), target)
        if isinstance(wrapper, BottleneckLayer):
            wrapper.update_layer(adapter_name, peft_config)
            return
        new = BottleneckLayer(target, adapter_name, peft_config, _stream_width(self.model))
        if adapter_name not in self.active_adapters:
            new.requires_grad_(False)  # a further adapter is not trainable by itself
        self._replace_module(parent, target_name, new, target)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """PEFT's own name for what `adapter_names=[...]`, one for each item of the batch, switches on."""
        names = kwargs.get("adapter_names")
        if names is None:
            yield
            return
        if self.training:
            raise ValueError("Cannot pass `adapter_names` when the model is in training mode.")
        layers = [m for m in self.modules() if isinstance(m, BottleneckLayer)]
        known = {n for layer in layers for n in layer.bottleneck_down} | {BASE}
        unknown = sorted(set(names) - known)
        if unknown:
            raise ValueError(f"Trying to infer with non-existing adapter(s): {', '.join(unknown)}")
        beams = kwargs.get("num_beams") or 1
        try:
            for layer in layers:
                layer.batch_names = [n for n in names for _ in range(beams)]
            yield
        finally:
            for layer in layers:
                layer.batch_names = None

    def _unload_and_optionally_merge(self, merge: bool = True, *args: Any, **kwargs: Any) -> nn.Module:
        """PEFT's own takes off the outermost wrappers only, and expects each to hold one weight."""
        if merge:
            refuse_merge()
        for parent, name, wrapper in _wrappers(self.model):
            setattr(parent, name, wrapper.base_layer)
        return super()._unload_and_optionally_merge(False, *args, **kwargs)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        """In a file a module has the name that it has in the base, whatever other adapters wrap around it here."""
        return super()._remove_adapter_name_from_key(key, adapter_name).replace(".base_layer.", ".")


def _wrappers(model: nn.Module) -> list[tuple[nn.Module, str, BottleneckLayer]]:
    """(parent, name in it, wrapper)."""
    children = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()]
    return [c for c in children if isinstance(c[2], BottleneckLayer)]


def _stream_width(model: nn.Module) -> int | None:
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config(decoder=True)
    return getattr(config, "hidden_size", None)


def register() -> None:
    """Make PEFT know the method; a second call changes nothing."""
    if NAME not in PeftType.__members__:
        member = str.__new__(PeftType, NAME)
        member._name_ = member._value_ = NAME
        type.__setattr__(PeftType, NAME, member)
        PeftType._member_names_.append(NAME)
        PeftType._member_map_[NAME] = member
        PeftType._value2member_map_[NAME] = member
    if getattr(PeftType, NAME) not in PEFT_TYPE_TO_CONFIG_MAPPING:
        register_peft_method(name=NAME.lower(), config_cls=BottleneckConfig, model_cls=BottleneckModel)


register()
