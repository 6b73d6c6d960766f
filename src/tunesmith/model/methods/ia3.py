"""IA3 through PEFT: every key, value and inner feed-forward channel times a trained factor that starts at 1.

Source: Liu et al. 2022, arXiv:2205.05638, section 3.3. Deviation: where a family computes query, key and
value in one product, all three have factors, as in PEFT.
"""

from __future__ import annotations

from pathlib import Path

import torch
from peft import IA3Config, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as FEEDFORWARD,
)
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as TARGETS,
)
from transformers import PreTrainedModel

from tunesmith.core.errors import InputError
from tunesmith.model.methods import adapter_files
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.model.methods.targets import linear_layers, target_names

KEY_VALUE = ("k_proj", "v_proj")  # where they are layers of their own; PEFT's table scales queries in some families


def wrap(model: PreTrainedModel, spec: MethodSpec, *, seed: int) -> PeftModel:
    """`seed` is not used: every factor starts at 1. Raises InputError for targets that the model lacks, and for
    a family whose keys and values are not known."""
    return _attach(model, spec)


def save(model: PeftModel, spec: MethodSpec, folder: Path, *, base: str) -> None:
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    adapter_files.write(folder, state, model.peft_config["default"], base=base)


def load(model: PreTrainedModel, spec: MethodSpec, checkpoint: Path) -> PeftModel:
    peft_model = _attach(model, spec)
    own = get_peft_model_state_dict(peft_model, save_embedding_layers=False)
    set_peft_model_state_dict(peft_model, adapter_files.read(checkpoint, own, peft_model.peft_config["default"]))
    return peft_model


def merge(model: PeftModel) -> PreTrainedModel:
    return model.merge_and_unload(safe_merge=True)


def _attach(model: PreTrainedModel, spec: MethodSpec) -> PeftModel:
    from tunesmith.model.load import quiet

    targets, feedforward = _layers(model, spec.targets)
    config = IA3Config(target_modules=targets, feedforward_modules=feedforward, task_type="CAUSAL_LM")
    training = model.training
    with quiet(), torch.random.fork_rng(devices=[]):
        peft_model = get_peft_model(model, config, autocast_adapter_dtype=True)
    for parameter in peft_model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # PEFT makes them in the base's type
    return peft_model.train(training)


def _layers(model: PreTrainedModel, targets: str | tuple[str, ...]) -> tuple[list[str], list[str]]:
    """(all targets, those whose inputs are scaled and not their outputs), as PEFT wants them.

    "all-linear" means the method's own layers: keys, values and what follows the feed-forward activation.
    """
    family = model.config.model_type
    inner = list(FEEDFORWARD.get(family, ()))
    if targets == "all-linear":
        if family not in TARGETS:
            raise InputError(
                f"the keys, values and feed-forward layers of {family} are not known",
                where="train.method.targets",
                fix="use lora, or a base of the families " + ", ".join(sorted(set(TARGETS) & set(FEEDFORWARD))),
            )
        names = {n.rsplit(".", 1)[-1] for n in linear_layers(model)}
        outputs = list(KEY_VALUE) if names.issuperset(KEY_VALUE) else [n for n in TARGETS[family] if n not in inner]
        return sorted([*outputs, *inner]), sorted(inner)
    chosen = target_names(model, targets)
    return chosen, [n for n in chosen if n in inner]
