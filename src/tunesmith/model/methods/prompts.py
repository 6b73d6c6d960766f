"""Prompt tuning, P-tuning and prefix tuning through PEFT: virtual tokens before every text, on a frozen base.

prompt    their embeddings are trained: Lester et al. 2021, arXiv:2104.08691; they start as the embeddings
          of tokens drawn from the whole vocabulary (the paper: from its 5,000 most frequent ones)
p_tuning  their embeddings come out of a three-layer network while training: Liu et al. 2021, arXiv:2103.10385
prefix    their keys and values in every layer are trained, with `projection` through a two-layer network:
          Li & Liang 2021, arXiv:2101.00190

The files hold what the networks give, as PEFT writes it: a loaded adapter needs none. Later tokens never
change what a virtual token's keys and values are, so all three answer from a cache that is filled before
the first token: see `Prefixed`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PeftModelForCausalLM, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from tunesmith.core.errors import InputError, ModelError
from tunesmith.model.methods import adapter_files
from tunesmith.model.methods.spec import MethodSpec

SIZES = ("num_layers", "num_attention_heads", "token_dim")


def wrap(model: PreTrainedModel, spec: MethodSpec, *, seed: int) -> PeftModel:
    """New weights from `seed` and, for prompt, the base's embeddings. Raises InputError for a base that keeps no
    keys and values, and for more virtual tokens than it reads."""
    peft_model = _attach(model, spec, inference=False)
    encoder = peft_model.prompt_encoder["default"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in encoder.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        if spec.kind == "prompt":
            words = model.get_input_embeddings().weight.detach()
            chosen = torch.randint(len(words), (spec.virtual_tokens,))
            encoder.embedding.weight.data.copy_(words[chosen])
    return peft_model


def check(model: PreTrainedModel, spec: MethodSpec) -> list[str]:
    """What `wrap` would refuse of a model whose weights are not there, but for layers that keep no keys and values:
    that takes a forward pass to tell, and so do the names of what is trained."""
    _refuse_no_room(model, spec)
    return []


def save(model: PeftModel, spec: MethodSpec, folder: Path, *, base: str) -> None:
    """One tensor, prompt_embeddings."""
    config = _config(model.get_base_model(), spec, inference=True)
    adapter_files.write(folder, get_peft_model_state_dict(model), config, base=base)


def load(model: PreTrainedModel, spec: MethodSpec, checkpoint: Path) -> PeftModel:
    """The base with the saved virtual tokens; it answers the same, and is not trained further."""
    peft_model = _attach(model, spec, inference=True)
    own = {"prompt_embeddings": peft_model.prompt_encoder["default"].embedding.weight}
    state = adapter_files.read(checkpoint, own, peft_model.peft_config["default"])
    with torch.no_grad():
        own["prompt_embeddings"].copy_(state["prompt_embeddings"])
    return peft_model


def merge(model: PeftModel) -> PreTrainedModel:
    raise ModelError("virtual tokens change no weight of the base", fix="serve the adapter beside its base")


def virtual_columns(model: Any) -> int:
    """How many places a PEFT model's forward puts before the first token of a text; 0 where it puts none, as
    with prefix tuning, whose virtual tokens are in the cache."""
    config = _prompt_config(model)
    return config.num_virtual_tokens if config is not None and config.peft_type.value != "PREFIX_TUNING" else 0


def refuse_long(model: Any, longest: int) -> None:
    """Raises InputError where a text of `longest` tokens and the virtual ones are more than the base reads."""
    config = _prompt_config(model)
    limit = getattr(model.config, "max_position_embeddings", None)
    if config is None or limit is None or config.num_virtual_tokens + longest <= limit:
        return
    raise InputError(
        f"{config.num_virtual_tokens} virtual tokens and a text of {longest} are more than the {limit} of the base",
        where="train.method.virtual_tokens",
        fix=f"at most {max(0, limit - longest)}, or a smaller train.max_tokens",
    )


def refuse_recomputing(model: Any) -> None:
    """Raises InputError where layers may not be computed twice."""
    config = _prompt_config(model)
    refuse_recomputing_kind("prefix" if config is not None and config.peft_type.value == "PREFIX_TUNING" else "")


def refuse_recomputing_kind(kind: str) -> None:
    """The same by the method's kind alone."""
    if kind == "prefix":
        raise InputError(
            "gradient checkpointing would read the prefix twice: it lies in the cache, which each pass adds to",
            where="train.method.kind: prefix",
            fix="--set exec.gradient_checkpointing=false, or use lora",
        )


def answering(model: Any) -> Any:
    """What to ask for answers: the module behind a PEFT wrapper; with virtual tokens, the base after them."""
    return prefixed(model) if _prompt_config(model) is not None else bare(model)


def bare(model: Any) -> Any:
    """The module behind a PEFT wrapper: with virtual tokens, the base that knows nothing of them."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT marks what it wraps too


def prefixed(model: PeftModel) -> Prefixed:
    """A class of its own for each architecture, as transformers has: callers try what an architecture can do."""
    base = model.get_base_model()
    return type(f"Prefixed{type(base).__name__}", (Prefixed,), {})(model)


class Prefixed(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A causal model whose every text begins after the virtual tokens, called as one without them.

    Masks and positions are the caller's, who does not count the virtual tokens. What they left in the cache is
    computed once, from the adapter's weights at the time of building.
    """

    def __init__(self, model: PeftModel):
        super().__init__()
        self.base = model.get_base_model()
        self._before = before(model)  # per layer: keys and values [1, H, V, D]
        self._columns = self._before[0][0].shape[2]
        self.config = copy.deepcopy(self.base.config)
        self.config.model_type = f"{self.base.config.model_type} after virtual tokens"
        for name in ("max_position_embeddings", "sliding_window"):
            if isinstance(limit := getattr(self.config, name, None), int):
                setattr(self.config, name, limit - self._columns)
        self.generation_config = self.base.generation_config
        self._takes = _parameters(self.base)

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    @property
    def device(self) -> torch.device:
        return self.base.device

    def get_output_embeddings(self) -> Any:
        return self.base.get_output_embeddings()

    def get_input_embeddings(self) -> Any:
        return self.base.get_input_embeddings()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = True,
    ) -> Any:
        """`attention_mask` is (B, K) of ones and zeros or (B, 1, T, K) to be added; K counts no virtual token."""
        cache = DynamicCache() if past_key_values is None else past_key_values
        if cache.get_seq_length() == 0:
            _fill(cache, self._before, rows=len(input_ids))
        arguments: dict[str, Any] = {"input_ids": input_ids, "use_cache": True}
        if attention_mask is not None:
            shape = (*attention_mask.shape[:-1], self._columns)
            seen = attention_mask.new_zeros(shape) if attention_mask.ndim == 4 else attention_mask.new_ones(shape)
            arguments["attention_mask"] = torch.cat((seen, attention_mask), -1)
        if position_ids is not None and "position_ids" in self._takes:
            arguments["position_ids"] = position_ids + self._columns
        arguments[_cache_name(self._takes)] = cache
        return self.base(**arguments)


class _PrefixModel(PeftModelForCausalLM):  # type: ignore[misc]  # peft is untyped here
    """PEFT's model with a forward that works for every family, as PEFT's own does not: Falcon and BLOOM have other
    shapes than it expects, and the cache is named otherwise since transformers 5.24."""

    def forward(self, input_ids: Tensor, **arguments: Any) -> Any:
        base = self.get_base_model()
        if any(getattr(m, "gradient_checkpointing", False) for m in base.modules()):
            refuse_recomputing(self)
        cache = DynamicCache()
        _fill(cache, _made(self), rows=len(input_ids))
        return base(input_ids=input_ids, **{_cache_name(_parameters(base)): cache}, **arguments)


def _fill(cache: Any, layers: Sequence[tuple[Tensor, Tensor]], *, rows: int) -> None:
    for i, (keys, values) in enumerate(layers):
        cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), i)


def _made(model: PeftModel) -> Any:
    """Of prefix tuning, per layer, keys and values [1, H, V, D]; of the others the embeddings [1, V, E]."""
    base, config, encoder = model.get_base_model(), model.peft_config["default"], model.prompt_encoder["default"]
    numbers = torch.arange(config.num_virtual_tokens, device=encoder.embedding.weight.device)[None]
    made = encoder.embedding(numbers) if config.inference_mode else encoder(numbers)
    if config.peft_type.value != "PREFIX_TUNING":
        return made.to(base.get_input_embeddings().weight.dtype)
    made = made.to(base.dtype).view(1, config.num_virtual_tokens, 2 * config.num_layers, config.num_attention_heads, -1)
    parts = made.permute(2, 0, 3, 1, 4)  # [2 L, 1, H, V, D]
    return [(parts[2 * i], parts[2 * i + 1]) for i in range(config.num_layers)]


def before(model: Any) -> list[tuple[Tensor, Tensor]]:
    """What the virtual tokens leave in the cache, per layer: keys and values [1, H, V, D]; [] for a model without."""
    if _prompt_config(model) is None:
        return []
    with torch.no_grad():
        made = _made(model)
        return made if isinstance(made, list) else _keys_values(model.get_base_model(), made)


def _keys_values(model: PreTrainedModel, embeddings: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of one row of embeddings [1, T, E], per layer. Raises InputError where layers hold something else."""
    training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        with torch.no_grad():
            cache = DynamicCache()
            model(inputs_embeds=embeddings, use_cache=True, **{_cache_name(_parameters(model)): cache})
            return [(layer.keys, layer.values) for layer in cache.layers]
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError) as e:
        raise InputError(
            f"{model.config.model_type} does not keep keys and values in every layer",
            where="train.method.kind",
            fix="use lora",
        ) from e
    finally:
        for module in training:
            module.training = True


def _attach(model: PreTrainedModel, spec: MethodSpec, *, inference: bool) -> PeftModel:
    from tunesmith.model.load import quiet

    _refuse_no_room(model, spec)
    config = _config(model, spec, inference=inference)
    training = model.training
    with quiet(), torch.random.fork_rng(devices=[]):
        wanted = copy.deepcopy(config)
        peft_model = (_PrefixModel if spec.kind == "prefix" else PeftModelForCausalLM)(model, config)
        if any(getattr(config, n) != getattr(wanted, n) for n in SIZES):  # PEFT put its own guess into the config
            for name in SIZES:
                setattr(config, name, getattr(wanted, name))
            peft_model._setup_prompt_encoder("default")
    peft_model.word_embeddings = model.get_input_embeddings()  # PEFT guesses it from shapes
    peft_model.prompt_encoder["default"].float()
    for name, parameter in peft_model.named_parameters():
        parameter.requires_grad_(name.startswith("prompt_encoder.") and not inference)
    return peft_model.train(training)


def _refuse_no_room(model: PreTrainedModel, spec: MethodSpec) -> None:
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and spec.virtual_tokens >= limit:
        raise InputError(
            f"{spec.virtual_tokens} leave no room: the base reads {limit} tokens",
            where="train.method.virtual_tokens",
            fix=f"fewer than {limit}; 20 is usual",
        )


def _config(model: PreTrainedModel, spec: MethodSpec, *, inference: bool) -> Any:
    """Sizes from one token's keys and values and not from the model's config, whose names and meanings differ
    (Falcon keeps one head, Qwen's heads are wider than their share of the hidden size)."""
    words = model.get_input_embeddings().weight
    found = _keys_values(model, words[:1][None].detach())
    shapes = {tuple(k.shape) for k, _ in found}
    if len(shapes) != 1:
        raise InputError(
            f"{model.config.model_type} has layers of different shapes",
            where=f"train.method.kind: {spec.kind}",
            fix="use lora",
        )
    _, heads, _, size = shapes.pop()
    shared: dict[str, Any] = {
        "task_type": "CAUSAL_LM",
        "inference_mode": inference,
        "num_virtual_tokens": spec.virtual_tokens,
        "num_transformer_submodules": 1,
        "num_layers": len(found),
        "num_attention_heads": heads,
    }
    if spec.kind == "prefix":
        return PrefixTuningConfig(
            **shared,
            token_dim=heads * size,
            prefix_projection=spec.projection > 0 and not inference,
            encoder_hidden_size=spec.projection or heads * size,
        )
    if spec.kind == "p_tuning":
        return PromptEncoderConfig(**shared, token_dim=words.shape[1], encoder_hidden_size=spec.projection)
    return PromptTuningConfig(**shared, token_dim=words.shape[1])


def _prompt_config(model: Any) -> Any:
    """The PEFT config of a model with virtual tokens; None for any other."""
    config = getattr(model, "peft_config", {})
    found = config.get("default") if isinstance(config, dict) else None
    return found if found is not None and found.is_prompt_learning else None


def _parameters(model: PreTrainedModel) -> Sequence[str]:
    import inspect

    return list(inspect.signature(model.forward).parameters)


def _cache_name(parameters: Sequence[str]) -> str:
    return "cache" if "cache" in parameters else "past_key_values"  # renamed in transformers 5.24
