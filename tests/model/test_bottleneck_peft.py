"""What PEFT must go on being for our tuner to be one of its own, and PEFT's verbs on it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
    get_peft_config,
)
from peft.utils import PeftType

from tunesmith.core.errors import ModelError
from tunesmith.model.load import load_base
from tunesmith.model.methods.bottleneck_layers import BottleneckLayer
from tunesmith.model.methods.bottleneck_peft import NAME, BottleneckConfig, BottleneckModel, register

IDS = torch.tensor([[1, 17, 40, 99, 5, 2], [8, 30, 31, 200, 7, 9], [3, 3, 40, 99, 7, 9]])
HOULSBY = {"target_modules": ["o_proj", "down_proj"], "width": 4, "init_weights": False}
PFEIFFER = {"target_modules": r"model\.layers\.\d+", "width": 3, "init_weights": False, "activation": "gelu"}
PARALLEL = {**PFEIFFER, "reads": "post_attention_layernorm", "scaling": 4.0, "width": 0, "reduction": 8.0}
CONFIGS = {"houlsby": HOULSBY, "pfeiffer": PFEIFFER, "parallel": PARALLEL}


def several(base: Path, names: tuple[str, ...] = ("houlsby", "pfeiffer", "parallel")) -> Any:
    """One base with adapters of different placements, none of which starts as nothing."""
    torch.manual_seed(0)
    model = get_peft_model(load_base(base, dtype="fp32"), BottleneckConfig(**CONFIGS[names[0]]), adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, BottleneckConfig(**CONFIGS[name]))
    return model.eval()


def test_the_enum_member_is_a_real_one() -> None:
    """Fails when Python's enum or PEFT's closed list of methods changes: see register()."""
    member = PeftType(NAME)
    assert member is PeftType.BOTTLENECK  # type: ignore[attr-defined]
    assert member is PeftType[NAME]
    assert member in list(PeftType)
    assert (member.name, member.value, str.__str__(member)) == (NAME, NAME, NAME)
    assert pickle.loads(pickle.dumps(member)) is member
    assert copy.deepcopy(member) is member
    assert hash(member) == hash(NAME)  # PEFT looks methods up by plain strings
    assert PEFT_TYPE_TO_CONFIG_MAPPING[NAME] is BottleneckConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING[NAME] is BottleneckModel
    assert PEFT_TYPE_TO_PREFIX_MAPPING[NAME] == "bottleneck_"
    before = dict(PEFT_TYPE_TO_TUNER_MAPPING), list(PeftType)
    register()
    assert (dict(PEFT_TYPE_TO_TUNER_MAPPING), list(PeftType)) == before


def test_peft_still_refuses_unknown_names() -> None:
    """The day PEFT takes any name, or has a method of this one, the member need not be put in by hand."""
    code = (
        "from peft.utils import PeftType, register_peft_method\n"
        f"assert '{NAME}' not in PeftType.__members__\n"
        f"try: register_peft_method(name='{NAME.lower()}', config_cls=object, model_cls=object)\n"
        "except ValueError as e: assert 'Unknown PEFT type' in str(e)\n"
        "else: raise SystemExit(1)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_config_is_saved_and_read_as_it_was(tmp_path: Path) -> None:
    config = BottleneckConfig(**PARALLEL)
    config.save_pretrained(tmp_path)
    again = PeftConfig.from_pretrained(tmp_path)
    assert isinstance(again, BottleneckConfig)
    assert again.to_dict() == config.to_dict()
    assert isinstance(get_peft_config({"peft_type": NAME, "width": 4}), BottleneckConfig)


@pytest.mark.parametrize("change", [{"activation": "sine"}, {"width": -1}, {"width": 0, "reduction": 0.0}], ids=str)
def test_impossible_configs_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        BottleneckConfig(**(HOULSBY | change))


def test_swapped_disabled_and_deleted_in_place(tiny_llama: Path) -> None:
    with torch.no_grad():
        plain = load_base(tiny_llama, dtype="fp32")(IDS).logits
        model = several(tiny_llama)
        alone = {}
        for name in CONFIGS:
            model.set_adapter(name)
            alone[name] = model(IDS).logits
        assert not torch.equal(alone["houlsby"], alone["pfeiffer"])
        for name in reversed(CONFIGS):
            model.set_adapter(name)
            assert torch.equal(model(IDS).logits, alone[name])
        with model.disable_adapter():
            assert torch.equal(model(IDS).logits, plain)
        model.delete_adapter("pfeiffer")
        model.set_adapter("parallel")
        assert torch.equal(model(IDS).logits, alone["parallel"])
        unloaded = model.unload()
        assert torch.equal(unloaded(IDS).logits, plain)
        assert not any(isinstance(m, BottleneckLayer) for m in unloaded.modules())


def test_several_active_adapters_of_one_place_add_up(tiny_llama: Path) -> None:
    model = several(tiny_llama, ("pfeiffer",))
    model.add_adapter("other", BottleneckConfig(**PFEIFFER))
    layer = next(m for m in model.modules() if isinstance(m, BottleneckLayer))
    x = torch.randn(2, 3, 48)
    layer.base_layer = torch.nn.Identity()
    layer.set_adapter(["pfeiffer", "other"])
    with torch.no_grad():
        torch.testing.assert_close(layer(x), x + layer.update("pfeiffer", x) + layer.update("other", layer(x) * 0 + x))


@pytest.mark.parametrize("first", CONFIGS)
def test_saved_among_others_loads_alone(first: str, tiny_llama: Path, tmp_path: Path) -> None:
    """In the file the names are the base's, however other adapters wrap around a module while it is saved."""
    order = (first, *(n for n in CONFIGS if n != first))
    model = several(tiny_llama, order)
    for name in order:
        model.set_adapter(name)
        with torch.no_grad():
            want = model(IDS).logits
        model.save_pretrained(tmp_path, selected_adapters=[name])
        alone = PeftModel.from_pretrained(load_base(tiny_llama, dtype="fp32"), tmp_path / name).eval()
        with torch.no_grad():
            assert torch.equal(alone(IDS).logits, want)
        model.load_adapter(tmp_path / name, adapter_name=f"{name}-again")
        model.set_adapter(f"{name}-again")
        with torch.no_grad():
            assert torch.equal(model(IDS).logits, want)


def test_each_item_of_a_batch_has_its_own_adapter(tiny_llama: Path) -> None:
    model = several(tiny_llama)
    names = ["pfeiffer", "__base__", "houlsby"]
    with torch.no_grad():
        got = model(IDS, adapter_names=names).logits
        for i, name in enumerate(names):
            if name == "__base__":
                with model.disable_adapter():
                    want = model(IDS[i : i + 1]).logits
            else:
                model.set_adapter(name)
                want = model(IDS[i : i + 1]).logits
            torch.testing.assert_close(got[i : i + 1], want, rtol=0, atol=1e-5)


def test_a_mixed_batch_refuses_unknown_names_and_training_and_leaves_nothing_behind(tiny_llama: Path) -> None:
    model = several(tiny_llama)
    model.set_adapter("houlsby")
    with torch.no_grad():
        want = model(IDS).logits
        with pytest.raises(ValueError, match="nobody"):
            model(IDS, adapter_names=["houlsby", "nobody", "__base__"])
        with pytest.raises(ModelError, match="2 adapter names for 3 rows"):
            model(IDS, adapter_names=["houlsby", "__base__"])
        assert torch.equal(model(IDS).logits, want)
    with pytest.raises(ValueError, match="training mode"):
        model.train()(IDS, adapter_names=["houlsby"] * 3)


def test_generate_takes_a_mixed_batch(tiny_llama: Path) -> None:
    model = several(tiny_llama)
    names = ["pfeiffer", "parallel", "houlsby"]
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 2}
    mask = torch.ones_like(IDS)
    got = model.generate(input_ids=IDS, attention_mask=mask, adapter_names=names, **options)
    for i, name in enumerate(names):
        model.set_adapter(name)
        alone = model.generate(input_ids=IDS[i : i + 1], attention_mask=mask[:1], **options)
        assert torch.equal(got[i : i + 1], alone)
