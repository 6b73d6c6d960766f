"""Several named adapters on one base: swapped in place, or each item of a batch with its own.

    several = Several.load(base, {"tickets": folder, "letters": other}, dtype="fp32")
    several.use("tickets")                                      # LanguageModel(several.model, renderer) answers with it
    several.forward(ids, ["tickets", "letters", None])          # None: the bare base
    several.generate(prompts, ["tickets", "letters", None], sampling, decode, batch_tokens=4096)

LoRA, bottleneck or IA3 adapters, one of the three on a base, and beside them virtual tokens (prompt, p_tuning, prefix),
which are a beginning of the cache and no part of the base: `before`. Tokens are read once for each adapter: the
beginning that prompts share has other keys and values under another adapter.
Shapes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from peft.tuners.ia3 import IA3Layer
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from tunesmith.core.canonical import content_id, file_id
from tunesmith.core.errors import InputError, ModelError, Problem
from tunesmith.model.forward import Network
from tunesmith.model.generating import Decode, Sampling, Text, item_generator, step
from tunesmith.model.load import load_base, load_tuned, quiet
from tunesmith.model.merging.merge import refuse_other_base
from tunesmith.model.methods import adapter_files, prompts
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.bottleneck_layers import BASE, BottleneckLayer
from tunesmith.model.methods.spec import START, MethodSpec, new_tokens_of, read_method
from tunesmith.model.routes import route
from tunesmith.model.rows import padded_batches, read_rows

TUNERS = ("lora", "bottleneck", "ia3")  # change layers of the base; PEFT holds one of them on a base
VIRTUAL = ("prompt", "p_tuning", "prefix")  # change no layer
Pairs = list[tuple[Tensor, Tensor]]  # keys and values (1, H, columns, D) of each layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An adapter that was read and checked, ready to be put on the base."""

    spec: MethodSpec
    folder: Path
    config: Any = None  # of PEFT, with the tensors; None for virtual tokens, which are read on the base itself
    state: dict[str, Tensor] | None = None


class Several:
    """Not for several threads at once, but for `read`. Adapters are fp32 and frozen; the base is never changed."""

    def __init__(self, base: Path, *, dtype: str | torch.dtype, start: Path | None = None) -> None:
        """The bare base; `add` puts adapters on it. With `start`, the checkpoint that all of them were trained on top
        of: the base with that one merged into it."""
        self.base, self.start = base, start
        plain = load_base(base, dtype=dtype) if start is None else load_tuned(base, start, dtype=dtype)
        self._plain = plain.requires_grad_(False)
        self._peft: PeftModel | None = None
        self._specs: dict[str, MethodSpec] = {}
        self._inside: dict[str, str] = {}  # PEFT's names for ours: in PEFT some names would clash with modules'
        self._virtual: dict[str, PeftModel] = {}
        self._tuned: list[nn.Module] = []  # the base's layers that adapters change
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
        if self.active in self._virtual:
            return self._virtual[self.active]
        return self._plain if self._peft is None else self._peft

    @property
    def bare(self) -> Any:
        """The base's own module, the same one whatever is put on it: with virtual tokens, what comes after them."""
        return self._plain

    def add(self, name: str, checkpoint: Path) -> None:
        """Put one more adapter beside the others; the one in use stays in use."""
        self._refuse(name, read_method(checkpoint), checkpoint)
        self.put(name, self.read(checkpoint))

    def read(self, checkpoint: Path) -> Held:
        """Read and check an adapter without touching the model: another thread may do it."""
        spec = read_method(checkpoint)
        refuse_kind(spec, checkpoint)
        refuse_new_tokens(checkpoint)
        refuse_other_start(self.start, checkpoint)
        if spec.kind in VIRTUAL:
            return Held(spec=spec, folder=checkpoint)
        config, state = _validated(self._plain, checkpoint)
        return Held(spec=spec, folder=checkpoint, config=config, state=state)

    def put(self, name: str, held: Held) -> None:
        """Put on the base what `read` gave. Raises InputError for a name that is taken, ModelError for a method that
        cannot be beside the others."""
        self._refuse(name, held.spec, held.folder)
        with quiet(), torch.random.fork_rng(devices=[]):
            if held.spec.kind in VIRTUAL:
                self._put_virtual(name, held)
            else:
                self._put_tuner(name, held)
        self._specs[name] = held.spec
        self.use(self.active)

    def _put_virtual(self, name: str, held: Held) -> None:
        before = self.active
        self.use(None)  # virtual tokens are read by the bare base
        self._virtual[name] = methods.load(self._plain, held.folder)
        self._virtual[name].eval()
        self.use(before)

    def _put_tuner(self, name: str, held: Held) -> None:
        inside = f"item{self._counter}"
        if self._peft is None:
            self._peft = get_peft_model(self._plain, held.config, adapter_name=inside, autocast_adapter_dtype=True)
        else:
            self._peft.add_adapter(inside, held.config)
        set_peft_model_state_dict(self._peft, held.state, adapter_name=inside)
        if held.spec.kind == "ia3":  # PEFT makes the factors in the base's type, and they were trained in fp32
            _factors_in_fp32(self._peft, inside, held.state or {})
        self._peft.eval()
        self._inside[name] = inside
        self._tuned = [m for m in self._peft.modules() if isinstance(m, LoraLayer | BottleneckLayer | IA3Layer)]
        self._counter += 1

    def remove(self, name: str) -> None:
        """Take an adapter off; if it was in use, the bare base is."""
        self._known(name)
        if self.active == name:
            self.use(None)
        del self._specs[name]
        if self._virtual.pop(name, None) is not None:
            return
        inside = self._inside.pop(name)
        assert self._peft is not None
        if not self._inside:
            self._plain = self._peft.unload()
            self._peft, self._tuned = None, []
            return
        with quiet():
            self._peft.delete_adapter(inside)
        self.use(self.active)

    def use(self, name: str | None) -> None:
        """Answer with this adapter from now on; None: the bare base. No weight moves."""
        if name is not None:
            self._known(name)
        self.active = name
        if self._peft is None:
            return
        if name not in self._inside:
            self._peft.base_model.disable_adapter_layers()
        else:
            self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(self._inside[name], inference_mode=True)
        self._peft.requires_grad_(False)

    def before(self, name: str | None) -> Pairs:
        """What an adapter's virtual tokens leave in the cache ahead of a text; [] for one that has none."""
        if name is not None:
            self._known(name)
        return prompts.before(self._virtual[name]) if name in self._virtual else []

    def why_apart(self, name: str) -> str:
        """Why this adapter cannot be in a batch with others; "" where it can."""
        self._known(name)
        if self._specs[name].dora:
            return f"{name} is DoRA, which depends on the whole weight and not on a row's update alone"
        return ""

    @contextmanager
    def mixed(self, names: Sequence[str | None]) -> Iterator[None]:
        """Inside, forward passes of `model` have len(names) rows, each with its own adapter. Virtual tokens are the
        caller's to put into the cache: see `before`."""
        for name in names:
            if name is not None:
                self._known(name)
        if apart := [why for n in sorted({n for n in names if n is not None}) if (why := self.why_apart(n))]:
            raise ModelError(apart[0], fix="answer its rows apart: use(NAME)")
        if self._peft is None:
            yield
            return
        inside = [self._inside.get(n, BASE) if n is not None else BASE for n in names]
        off = self.active not in self._inside
        if off:
            self._peft.base_model.enable_adapter_layers()  # switched off they would pass the names over
        try:
            with ExitStack() as undo:
                for module in self._tuned:
                    if isinstance(module, BottleneckLayer):
                        module.batch_names = inside
                        undo.callback(setattr, module, "batch_names", None)
                    elif isinstance(module, IA3Layer):
                        undo.enter_context(_scaled_by_row(module, inside))
                    else:
                        handle = module.register_forward_pre_hook(_named(inside), with_kwargs=True)
                        undo.callback(handle.remove)
                yield
        finally:  # PEFT's own hooks stay where a forward pass fails
            if off:
                self.use(self.active)

    def forward(self, ids_BT: Tensor, names: Sequence[str | None], *, mask_BT: Tensor | None = None) -> Tensor:
        """Logits (B, T, V), each row with its own adapter: those of that adapter alone, to 1e-5 in fp32."""
        if len(names) != len(ids_BT):
            raise InputError(
                Problem(where="names", what=f"are {len(names)} for {len(ids_BT)} rows", fix="one for each")
            )
        self._refuse_virtual(names)
        network = Network(self._plain)
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
        self._refuse_virtual(names)
        texts = [Text(i, item_generator(sampling.seed, i)) for i in range(len(prompts))]
        network = Network(self._plain)
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

    def _refuse_virtual(self, names: Sequence[str | None]) -> None:
        for name in names:
            if name in self._virtual:
                what = (
                    f"{name} is {self._specs[name].kind}: its virtual tokens are in the cache, which begins empty here"
                )
                raise ModelError(
                    what, fix="use(NAME) and LanguageModel, or `before` in a cache of your own, as serve does"
                )

    def _known(self, name: str) -> None:
        if name not in self._specs:
            near = difflib.get_close_matches(name, self._specs, n=1)
            fix = f"did you mean {near[0]}?" if near else f"there are: {', '.join(self._specs) or 'none'}"
            raise InputError(Problem(where=f"adapter {name!r}", what="is not loaded", fix=fix))

    def _refuse(self, name: str, spec: MethodSpec, checkpoint: Path) -> None:
        where = str(checkpoint)
        if not name or name in self._specs:
            raise InputError(Problem(where=f"adapter {name!r}", what="is empty or taken", fix="give each its own name"))
        refuse_kind(spec, checkpoint)
        refuse_new_tokens(checkpoint)
        refuse_other_start(self.start, checkpoint)
        others = {s.kind for s in self._specs.values()} - {spec.kind, *VIRTUAL}
        if others and spec.kind in TUNERS:
            what = f"is {spec.kind}, but the base already holds {', '.join(sorted(others))}"
            raise ModelError(what, where=where, fix="keep one base in memory for each method")


def refuse_kind(spec: MethodSpec, checkpoint: Path) -> None:
    """Raises ModelError for a method whose result is no adapter that shares a base with others."""
    reasons = {
        "full": ("holds weights of its own and no adapter", "serve it by itself"),
        "qlora": ("stands on quantized weights, and the others on the base's own", "train it with kind: lora"),
    }
    if spec.kind not in (*TUNERS, *VIRTUAL):
        what, fix = reasons.get(spec.kind, ("cannot share a base", f"use {', '.join(TUNERS)}"))
        raise ModelError(f"is {spec.kind}: it {what}", where=str(checkpoint), fix=fix)


def refuse_new_tokens(checkpoint: Path) -> None:
    """Raises ModelError for new tokens: their rows change the embeddings, which all adapters of a base share."""
    if tokens := new_tokens_of(checkpoint):
        what = f"has {len(tokens)} new tokens, whose rows are part of the base that the others share"
        raise ModelError(what, where=str(checkpoint), fix="serve it by itself")


def refuse_other_start(start: Path | None, checkpoint: Path) -> None:
    """Raises ModelError unless the checkpoint was trained on top of exactly this one (None: on the base itself)."""
    inner = checkpoint / START
    mine, theirs = (None if f is None or not f.is_dir() else contents(f) for f in (start, inner))
    if mine == theirs:
        return
    if theirs is None:
        what = "was trained on the base itself, and the others on top of a checkpoint (start)"
    else:
        what = "stands on a checkpoint of its own (start), so its base is not the one that the others share"
    raise ModelError(what, where=str(checkpoint), fix="adapters share a base where all have the same start, or none")


def contents(folder: Path) -> str:
    """A hash of all files below it, by name."""
    return content_id({p.relative_to(folder).as_posix(): file_id(p) for p in folder.rglob("*") if p.is_file()})


def _named(names: Sequence[str]) -> Any:
    """PEFT's keyword for a mixed batch; a name for each row, also where a model flattens rows and tokens (OPT)."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        rows = len(args[0])
        if rows % len(names):
            raise ModelError(f"{len(names)} adapter names for {rows} rows", fix="give one for each row")
        return args, kwargs | {"adapter_names": [n for n in names for _ in range(rows // len(names))]}

    return hook


@contextmanager
def _scaled_by_row(layer: IA3Layer, names: Sequence[str]) -> Iterator[None]:
    """IA3 for a mixed batch, which PEFT lacks: each row's input or output times its own adapter's factors."""
    ones = None

    def factors(x: Tensor, size: int) -> Tensor:
        """(rows, 1, ..., size); 1 where a row has no adapter here."""
        nonlocal ones
        if len(x) % len(names):
            raise ModelError(f"{len(names)} adapter names for {len(x)} rows", fix="give one for each row")
        found = dict(layer.ia3_l.items())
        if ones is None:
            ones = torch.ones(size, device=x.device)
        each = [found[n].flatten() if n in found else ones for n in names for _ in range(len(x) // len(names))]
        return torch.stack(each).view(len(x), *([1] * (x.ndim - 2)), size)

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0]
        return ((x.float() * factors(x, x.shape[-1])).to(x.dtype), *args[1:])

    def after(_: nn.Module, __: tuple[Any, ...], result: Tensor) -> Tensor:
        return (result * factors(result, result.shape[-1])).to(result.dtype)

    base = layer.get_base_layer()
    handle = base.register_forward_pre_hook(before) if layer.is_feedforward else base.register_forward_hook(after)
    disabled, layer._disable_adapters = layer._disable_adapters, True
    try:
        yield
    finally:
        layer._disable_adapters = disabled
        handle.remove()


def _factors_in_fp32(model: PeftModel, inside: str, state: Mapping[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith(f".ia3_l.{inside}"):
            parameter.data = state[name.removesuffix(f".{inside}")].float().to(parameter.device)


def _validated(plain: Any, checkpoint: Path) -> tuple[Any, dict[str, Tensor]]:
    """(PEFT configuration, tensors) of a checkpoint, read as strictly as when it is loaded alone: on a copy of the
    base that has shapes and no weights."""
    with quiet(), torch.device("meta"):
        shape_only = AutoModelForCausalLM.from_config(copy.deepcopy(plain.config), dtype=plain.dtype)
    with quiet():  # torch says that nothing is copied into tensors without memory
        empty = methods.load(shape_only, checkpoint)
    own = get_peft_model_state_dict(empty, save_embedding_layers=False)
    state = load_file(checkpoint / adapter_files.WEIGHTS)
    assert set(own) == set(state)  # methods.load is strict
    found = empty.peft_config["default"]
    found.inference_mode = True
    return found, state
