"""Several adapters on one base: swapped in place, or one batch with each item's own, equal to each alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.tiny import make_tiny
from tunesmith.core.errors import InputError, ModelError
from tunesmith.model.forward import Network
from tunesmith.model.generating import Sampling, generate
from tunesmith.model.load import load_base, load_tuned
from tunesmith.model.merging.merge import IDENTITY, identity
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import MethodSpec, method_json
from tunesmith.model.several import Several

LORA = MethodSpec(kind="lora", rank=4, alpha=8.0, dropout=0.0, targets="all-linear")
HOULSBY = MethodSpec(
    kind="bottleneck", rank=4, alpha=1.0, dropout=0.0, targets="all-linear", placement="houlsby", activation="silu"
)
IA3 = replace(LORA, kind="ia3")
PREFIX = replace(LORA, kind="prefix", virtual_tokens=5)
PROMPT = replace(LORA, kind="prompt", virtual_tokens=3)
SETS = {
    # one name is a module's, one a tensor's: in PEFT's own state dicts both would clash
    "lora": {
        "layers": LORA,
        "weight": replace(LORA, rank=2, targets=("q_proj", "v_proj")),
        "pissa": replace(LORA, init="pissa"),
    },
    "bottleneck": {
        "pfeiffer": replace(HOULSBY, placement="pfeiffer", activation="relu"),
        "houlsby": HOULSBY,
        "parallel": replace(HOULSBY, placement="parallel", scaling=4.0),
    },
    "ia3": {"all": IA3, "some": replace(IA3, targets=("v_proj", "down_proj")), "again": IA3},
}
IDS = torch.tensor([[1, 17, 40, 99, 5, 2], [8, 30, 31, 200, 7, 9], [1, 17, 40, 99, 7, 9], [1, 17, 40, 99, 7, 9]])
SAMPLING = Sampling(max_new_tokens=6, temperature=0.0, top_p=1.0, seed=0, stop=(), stop_ids=frozenset({2}))


def made(base: Path, spec: MethodSpec, out: Path, *, seed: int) -> Path:
    model = methods.wrap(load_base(base, dtype="fp32"), spec, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in methods.trainable_parameters(model).values():
            parameter.add_(torch.empty_like(parameter).normal_(std=0.1, generator=generator))
    out.mkdir(parents=True)
    methods.save(model, spec, out, base="tiny")
    (out / "checkpoint.json").write_text(
        json.dumps({"method": method_json(spec), "base": "tiny", IDENTITY: identity(base)})
    )
    return out


@pytest.fixture(params=SETS)
def checkpoints(request: pytest.FixtureRequest, tmp_path: Path, tiny_llama: Path) -> dict[str, Path]:
    return {n: made(tiny_llama, s, tmp_path / n, seed=i) for i, (n, s) in enumerate(SETS[request.param].items())}


def alone(base: Path, checkpoint: Path | None) -> torch.nn.Module:
    model = (
        load_base(base, dtype="fp32") if checkpoint is None else load_tuned(base, checkpoint, dtype="fp32", merge=False)
    )
    return model.eval()  # type: ignore[no-any-return]


def logits(model: torch.nn.Module, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return found


def test_swapped_in_place_is_each_alone(checkpoints: dict[str, Path], tiny_llama: Path) -> None:
    several = Several.load(tiny_llama, checkpoints, dtype="fp32")
    assert several.names == tuple(checkpoints)
    assert several.active is None
    for name in (None, *checkpoints, *reversed(checkpoints), None):
        several.use(name)
        want = logits(alone(tiny_llama, None if name is None else checkpoints[name]))
        assert torch.equal(logits(several.model), want)
        assert not any(p.requires_grad for p in several.model.parameters())


def test_a_mixed_batch_is_each_alone(checkpoints: dict[str, Path], tiny_llama: Path) -> None:
    several = Several.load(tiny_llama, checkpoints, dtype="fp32")
    a, b, c = checkpoints
    want = {n: logits(alone(tiny_llama, None if n is None else checkpoints[n])) for n in (a, b, c, None)}
    for active in (None, b):
        several.use(active)
        before = logits(several.model)
        for names in ((a, b, c, None), (c, None, a, a), (None, None, None, b)):
            got = several.forward(IDS, names)
            for i, name in enumerate(names):
                torch.testing.assert_close(got[i], want[name][i], rtol=0, atol=1e-5)
        assert several.active == active
        assert torch.equal(logits(several.model), before)
    assert float((got[2] - got[3]).abs().max()) > 1e-3  # the same tokens under different adapters


@pytest.mark.parametrize("family", ["gpt2", "opt", "falcon"])
@pytest.mark.parametrize("kind", SETS)
def test_other_families(family: str, kind: str, tmp_path: Path) -> None:
    extra = {"opt": {"ffn_dim": 96, "word_embed_proj_dim": 48}}.get(family, {})
    base = make_tiny(tmp_path / "base", family, **extra)
    specs = {
        "lora": [LORA, replace(LORA, rank=2)],
        "bottleneck": list(SETS["bottleneck"].values())[:2],
        "ia3": [IA3, IA3],
    }[kind]
    folders = {f"n{i}": made(base, s, tmp_path / f"n{i}", seed=i) for i, s in enumerate(specs)}
    several = Several.load(base, folders, dtype="fp32")
    names = ["n0", None, "n1", "n0"]
    got = several.forward(IDS, names)
    for i, name in enumerate(names):
        want = logits(alone(base, None if name is None else folders[name]), IDS[i : i + 1])
        torch.testing.assert_close(got[i : i + 1], want, rtol=0, atol=1e-5)


def test_generated_in_one_batch_is_each_alone(checkpoints: dict[str, Path], tiny_llama: Path) -> None:
    several = Several.load(tiny_llama, checkpoints, dtype="fp32")
    a, b, c = checkpoints
    prompts = [[1, 17, 40, 99, 5], [1, 17, 40, 99, 5], [1, 17, 40], [1, 17, 40, 99, 5, 8, 9], [1, 17, 40, 99, 5]]
    names = [a, b, c, a, None]

    def decode(ids: object) -> str:
        return str(ids)

    networks = {n: Network(alone(tiny_llama, None if n is None else checkpoints[n])) for n in set(names)}
    for batch_tokens in (1000, 20):
        got = several.generate(prompts, names, SAMPLING, decode, batch_tokens=batch_tokens)
        for prompt, name, text in zip(prompts, names, got, strict=True):
            network = networks[name]
            with network.evaluating():
                want = generate(network, [prompt], SAMPLING, decode, batch_tokens=100)[0]
            assert text.ids == want.ids
            assert text.logprob == pytest.approx(want.logprob, abs=1e-4)


def test_added_and_removed_while_in_use(checkpoints: dict[str, Path], tiny_llama: Path) -> None:
    several = Several(tiny_llama, dtype="fp32")
    plain = logits(several.model)
    several.use(None)
    a, b, c = checkpoints
    several.add(a, checkpoints[a])
    several.use(a)
    want = logits(alone(tiny_llama, checkpoints[a]))
    for change in (
        lambda: several.add(b, checkpoints[b]),
        lambda: several.add(c, checkpoints[c]),
        lambda: several.remove(b),
    ):
        change()
        assert torch.equal(logits(several.model), want)
    several.remove(a)
    assert several.active is None
    assert torch.equal(logits(several.model), plain)
    several.use(c)
    assert torch.equal(logits(several.model), logits(alone(tiny_llama, checkpoints[c])))
    several.remove(c)
    assert torch.equal(logits(several.model), plain)
    several.add(a, checkpoints[a])
    several.use(a)
    assert torch.equal(logits(several.model), want)


def test_what_goes_wrong_leaves_nothing_behind(checkpoints: dict[str, Path], tiny_llama: Path) -> None:
    several = Several.load(tiny_llama, checkpoints, dtype="fp32")
    a = next(iter(checkpoints))
    several.use(a)
    before = logits(several.model)
    with pytest.raises(InputError, match="is not loaded"):
        several.forward(IDS, [a, a, a, "nobody"])
    with pytest.raises(InputError, match="did you mean"):
        several.use(a + "x")
    with pytest.raises(InputError, match="3 for 4 rows"):
        several.forward(IDS, [a, a, a])
    with pytest.raises(ModelError, match="adapter names for 4 rows"), several.mixed([a, None, a]):
        logits(several.model)
    with pytest.raises(IndexError):
        several.forward(torch.full((1, 3), 10**6), [None])
    assert torch.equal(logits(several.model), before)


def test_what_cannot_share_a_base_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    lora, houlsby = (made(tiny_llama, s, tmp_path / n, seed=0) for n, s in (("a", LORA), ("b", HOULSBY)))
    with pytest.raises(ModelError, match="already holds lora"):
        Several.load(tiny_llama, {"a": lora, "b": houlsby}, dtype="fp32")
    with pytest.raises(InputError, match="taken"):
        Several.load(tiny_llama, {"a": lora}, dtype="fp32").add("a", lora)
    full = made(tiny_llama, replace(LORA, kind="full"), tmp_path / "full", seed=0)
    with pytest.raises(ModelError, match="is full: it holds weights of its own"):
        Several.load(tiny_llama, {"a": full}, dtype="fp32")
    other = make_tiny(tmp_path / "other", seed=9)
    with pytest.raises(ModelError, match="other weights"):
        Several.load(other, {"a": lora}, dtype="fp32")
    dora = made(tiny_llama, replace(LORA, dora=True), tmp_path / "dora", seed=0)
    several = Several.load(tiny_llama, {"a": lora, "d": dora}, dtype="fp32")
    several.use("d")
    assert torch.equal(logits(several.model), logits(alone(tiny_llama, dora)))
    with pytest.raises(ModelError, match="is DoRA"):
        several.forward(IDS[:1], ["d"])


def test_a_damaged_checkpoint_is_refused_as_when_alone(tiny_llama: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    lora = made(tiny_llama, LORA, tmp_path / "a", seed=0)
    state = load_file(lora / "adapter_model.safetensors")
    state.pop(sorted(state)[0])
    save_file(state, lora / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="1 tensors do not fit"):
        Several.load(tiny_llama, {"a": lora}, dtype="fp32")


def test_virtual_tokens_are_beside_any_other_method(tiny_llama: Path, tmp_path: Path) -> None:
    specs = {"lora": LORA, "prefix": PREFIX, "prompt": PROMPT}
    folders = {n: made(tiny_llama, s, tmp_path / n, seed=i) for i, (n, s) in enumerate(specs.items())}
    several = Several.load(tiny_llama, folders, dtype="fp32")
    prompts = [[1, 17, 40, 99, 5], [1, 17, 40]]
    for name in (*folders, *reversed(folders)):
        several.use(name)
        want, got = Network(alone(tiny_llama, folders[name])), Network(several.model)
        with want.evaluating(), got.evaluating():
            texts = [[t.ids for t in generate(n, prompts, SAMPLING, str, batch_tokens=100)] for n in (want, got)]
        assert texts[0] == texts[1]
    several.use("prefix")
    assert [len(several.before(n)) for n in (None, "lora", "prefix", "prompt")] == [0, 0, 3, 3]
    assert several.before("prefix")[0][0].shape[2] == 5 and several.before("prompt")[0][0].shape[2] == 3
    with pytest.raises(ModelError, match="its virtual tokens are in the cache"):
        several.forward(IDS[:2], ["lora", "prefix"])
    several.remove("lora")
    several.remove("prompt")
    assert several.active == "prefix" and several.names == ("prefix",)


def test_adapters_of_one_start_share_the_merged_base(tiny_llama: Path, tmp_path: Path) -> None:
    start = made(tiny_llama, LORA, tmp_path / "domain", seed=7)
    folders = {n: made(tiny_llama, LORA, tmp_path / n, seed=i) for i, n in enumerate("ab")}
    for folder in folders.values():
        shutil.copytree(start, folder / "start")
    several = Several(tiny_llama, dtype="fp32", start=folders["a"] / "start")
    for name, folder in folders.items():
        several.add(name, folder)
    got = several.forward(IDS[:3], ["a", "b", None])
    for i, name in enumerate("ab"):
        torch.testing.assert_close(got[i], logits(alone(tiny_llama, folders[name]))[i], rtol=0, atol=1e-5)
    torch.testing.assert_close(got[2], logits(load_tuned(tiny_llama, start, dtype="fp32"))[2], rtol=0, atol=1e-5)
    with pytest.raises(ModelError, match="trained on the base itself"):
        several.add("c", made(tiny_llama, LORA, tmp_path / "c", seed=3))
    with pytest.raises(ModelError, match="stands on a checkpoint of its own"):
        Several(tiny_llama, dtype="fp32").add("a", folders["a"])
