"""Several named adapters on one base: swapped in place, or each item of a batch with its own.

    several = Several.load(base, {"tickets": folder, "letters": other}, dtype="fp32")
    several.use("tickets")                                      # LanguageModel(several.model, renderer) answers with it
    several.forward(ids, ["tickets", "letters", None])          # None: the bare base
    several.generate(prompts, ["tickets", "letters", None], sampling, decode, batch_tokens=4096)

Tokens are read once for each adapter: the beginning that prompts share has other keys and values under another adapter.
Shapes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from tunesmith.core.errors import InputError, ModelError, Problem
from tunesmith.model.forward import Network
from tunesmith.model.generating import Decode, Sampling, Text, item_generator, step
from tunesmith.model.load import START, load_base, quiet
from tunesmith.model.merging.merge import refuse_other_base
from tunesmith.model.methods import adapter_files
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.bottleneck_layers import BASE, BottleneckLayer
from tunesmith.model.methods.spec import MethodSpec, read_method
from tunesmith.model.routes import route
from tunesmith.model.rows import padded_batches, read_rows

KINDS = ("lora", "bottleneck")


class Several:
    """Not for several threads at once. Adapters are fp32 and frozen; the base is never changed."""

    def __init__(self, base: Path, *, dtype: str | torch.dtype) -> None:
        """The bare base; `add` puts adapters on it."""
        self.base = base
        self._plain = load_base(base, dtype=dtype).requires_grad_(False)
        self._peft: PeftModel | None = None
        self._specs: dict[str, MethodSpec] = {}
        self._inside: dict[str, str] = {}  # PEFT's names for ours: in PEFT some names would clash with modules'
        self._counter = 0
        self.active: str | None = None

    @classmethod
    def load(cls, base: Path, checkpoints: Mapping[str, Path], *, dtype: str | torch.dtype) -> Several:
        """Raises ModelError for checkpoints of another base, of methods that cannot share one, or that are damaged."""
        several = cls(base, dtype=dtype)
        refuse_other_base(base, *checkpoints.values())
        for name, checkpoint in checkpoints.items():
            several.add(name, checkpoint)
        return several

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._specs)

    @property
    def model(self) -> Any:
        """For LanguageModel and Network: it answers with the adapter in `active`."""
        return self._plain if self._peft is None else self._peft

    def add(self, name: str, checkpoint: Path) -> None:
        """Put one more adapter beside the others; the one in use stays in use."""
        spec = read_method(checkpoint)
        self._refuse(name, spec, checkpoint)
        config, state = _validated(self.base, checkpoint, self._plain.dtype)
        inside = f"item{self._counter}"
        with quiet(), torch.random.fork_rng(devices=[]):
            if self._peft is None:
                self._peft = get_peft_model(self._plain, config, adapter_name=inside, autocast_adapter_dtype=True)
            else:
                self._peft.add_adapter(inside, config)
            set_peft_model_state_dict(self._peft, state, adapter_name=inside)
        self._peft.eval()
        self._specs[name], self._inside[name] = spec, inside
        self._counter += 1
        self.use(self.active)

    def remove(self, name: str) -> None:
        """Take an adapter off; if it was in use, the bare base is."""
        inside = self._known(name)
        assert self._peft is not None
        if self.active == name:
            self.use(None)
        del self._specs[name], self._inside[name]
        if not self._specs:
            self._plain = self._peft.unload()
            self._peft = None
            return
        with quiet():
            self._peft.delete_adapter(inside)
        self.use(self.active)

    def use(self, name: str | None) -> None:
        """Answer with this adapter from now on; None: the bare base. No weight moves."""
        inside = None if name is None else self._known(name)
        self.active = name
        if self._peft is None:
            return
        if inside is None:
            self._peft.base_model.disable_adapter_layers()
        else:
            self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(inside, inference_mode=True)
        self._peft.requires_grad_(False)

    @contextmanager
    def mixed(self, names: Sequence[str | None]) -> Iterator[None]:
        """Inside, forward passes of `model` have len(names) rows, each with its own adapter."""
        inside = [BASE if n is None else self._known(n) for n in names]
        dora = sorted({n for n in names if n is not None and self._specs[n].dora})
        if dora:
            raise ModelError(
                f"{dora[0]} is DoRA, which depends on the whole weight and not on a row's update alone",
                fix=f"answer its rows apart: use({dora[0]!r})",
            )
        if self._peft is None:
            yield
            return
        before = self.active
        if before is None and self._specs:
            self._peft.base_model.enable_adapter_layers()  # switched off they would pass the names over
        handles = []
        try:
            for module in self._peft.modules():
                if isinstance(module, BottleneckLayer):
                    module.batch_names = inside
                elif isinstance(module, LoraLayer):
                    handles.append(module.register_forward_pre_hook(_named(inside), with_kwargs=True))
            yield
        finally:  # PEFT's own hooks stay where a forward pass fails
            for handle in handles:
                handle.remove()
            for module in self._peft.modules():
                if isinstance(module, BottleneckLayer):
                    module.batch_names = None
            self.use(before)

    def forward(self, ids_BT: Tensor, names: Sequence[str | None], *, mask_BT: Tensor | None = None) -> Tensor:
        """Logits (B, T, V), each row with its own adapter: those of that adapter alone, to 1e-5 in fp32."""
        if len(names) != len(ids_BT):
            raise InputError(
                Problem(where="names", what=f"are {len(names)} for {len(ids_BT)} rows", fix="one for each")
            )
        network = Network(self.model)
        with network.evaluating(), self.mixed(names):
            logits: Tensor = network.inner(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits
        return logits

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        names: Sequence[str | None],
        sampling: Sampling,
        decode: Decode,
        *,
        batch_tokens: int,
    ) -> list[Text]:
        """As generating.generate, each prompt with its own adapter, in one batch wherever the model has a cache."""
        if len(names) != len(prompts):
            what = f"are {len(names)} for {len(prompts)} prompts"
            raise InputError(Problem(where="names", what=what, fix="one for each"))
        texts = [Text(i, item_generator(sampling.seed, i)) for i in range(len(prompts))]
        network = Network(self.model)
        with network.evaluating():
            longest = max(len(p) for p in prompts) + sampling.max_new_tokens
            if route(network, longest) == "plain":
                raise ModelError(
                    "a mixed batch needs a cache, which is not right for this model", fix="use one at a time"
                )
            for batch in padded_batches(prompts, batch_tokens=batch_tokens, more=sampling.max_new_tokens):
                self._decode(network, [prompts[i] for i in batch], [names[i] for i in batch], [texts[i] for i in batch],
                             sampling, decode)  # fmt: skip
        return texts

    def _decode(
        self,
        network: Network,
        prompts: list[Sequence[int]],
        names: list[str | None],
        texts: list[Text],
        sampling: Sampling,
        decode: Decode,
    ) -> None:
        with self.mixed(names):
            rows = read_rows(network, prompts, share=False)
        while True:
            logits_BV = rows.logits_BV.float()
            going = [r for r, text in enumerate(texts) if not text.add(logits_BV[r], sampling, decode)]
            if not going:
                return
            if len(going) < len(texts):
                rows, texts, names = rows.keep(going), [texts[r] for r in going], [names[r] for r in going]
            with self.mixed(names):
                rows = step(network, rows, [text.ids[-1] for text in texts])

    def _known(self, name: str) -> str:
        if name not in self._inside:
            near = difflib.get_close_matches(name, self._specs, n=1)
            fix = f"did you mean {near[0]}?" if near else f"there are: {', '.join(self._specs) or 'none'}"
            raise InputError(Problem(where=f"adapter {name!r}", what="is not loaded", fix=fix))
        return self._inside[name]

    def _refuse(self, name: str, spec: MethodSpec, checkpoint: Path) -> None:
        where = str(checkpoint)
        if not name or name in self._specs:
            raise InputError(Problem(where=f"adapter {name!r}", what="is empty or taken", fix="give each its own name"))
        if spec.kind not in KINDS:
            fix = f"several adapters on one base: {', '.join(KINDS)}"
            raise ModelError(f"is {spec.kind}, which cannot share a base with others here", where=where, fix=fix)
        if (checkpoint / START).is_dir():
            what = "stands on a checkpoint of its own (start), so its base is not the one that the others share"
            raise ModelError(what, where=where, fix="merge the start into the base and train on the result")
        others = {s.kind for s in self._specs.values()} - {spec.kind}
        if others:
            what = f"is {spec.kind}, but the base already holds {', '.join(sorted(others))}"
            raise ModelError(what, where=where, fix="keep one base in memory for each method")


def _named(names: Sequence[str]) -> Any:
    """PEFT's keyword for a mixed batch; a name for each row, also where a model flattens rows and tokens (OPT)."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        rows = len(args[0])
        if rows % len(names):
            raise ModelError(f"{len(names)} adapter names for {rows} rows", fix="give one for each row")
        return args, kwargs | {"adapter_names": [n for n in names for _ in range(rows // len(names))]}

    return hook


def _validated(base: Path, checkpoint: Path, dtype: torch.dtype) -> tuple[Any, dict[str, Tensor]]:
    """(PEFT configuration, tensors) of a checkpoint, read as strictly as when it is loaded alone: on a copy of the
    base that has shapes and no weights."""
    with quiet(), torch.device("meta"):
        config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
        shape_only = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with quiet():  # torch says that nothing is copied into tensors without memory
        empty = methods.load(shape_only, checkpoint)
    own = get_peft_model_state_dict(empty, save_embedding_layers=False)
    state = load_file(checkpoint / adapter_files.WEIGHTS)
    assert set(own) == set(state)  # methods.load is strict
    found = empty.peft_config["default"]
    found.inference_mode = True
    return found, state
