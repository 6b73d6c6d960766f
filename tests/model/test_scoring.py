"""A label's probability is the softmax of summed log-probabilities, stop token included, however it is computed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model.sharp import Numbers, message, sharp_model
from tunesmith.core.errors import InputError
from tunesmith.model import routes
from tunesmith.model.answer import LanguageModel
from tunesmith.model.forward import Network
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.model.plain import score_in_full, score_on_cache
from tunesmith.model.routes import label_scores, route
from tunesmith.model.scoring import Counts, batches, common_beginning, groups, score_labels
from tunesmith.model.trie import LabelTrie

# first tokens shared, one label the beginning of another, a single token, a fork in the middle
LABELS = ["30 31 32 40 41", "30 31", "55", "30 31 90 91 92 93", "120 121 122", "30 31 32", "7 8 9 10 11 12 13"]
SEQUENCES = [Numbers().answer(label) for label in LABELS]
TRIE = LabelTrie(LABELS, SEQUENCES)


def some_prompts(seed: int = 0, lengths: tuple[int, ...] = (3, 9, 30, 1, 5, 120, 5)) -> list[list[int]]:
    rng = random.Random(seed)
    start = [rng.randrange(3, 300) for _ in range(20)]
    prompts = [start + [rng.randrange(3, 300) for _ in range(n)] for n in lengths]
    return [*prompts, prompts[0]]  # one twice


def one_by_one(model: torch.nn.Module, prompts: list[list[int]]) -> np.ndarray:
    """The definition: a fresh forward for each prompt and label, no padding, no cache."""
    scores = np.zeros((len(prompts), len(SEQUENCES)))
    for i, prompt in enumerate(prompts):
        for k, label in enumerate(SEQUENCES):
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *label]])).logits[0].double()
            places = range(len(prompt) - 1, len(prompt) + len(label) - 1)
            scores[i, k] = sum(float(logits[p].log_softmax(-1)[t]) for p, t in zip(places, label, strict=True))
    return scores


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))


FAMILIES = ["llama", "gpt2", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "mistral"]


@pytest.mark.parametrize("family", FAMILIES)
def test_tree_equals_each_label_in_full_one_by_one(family: str, tmp_path: Path) -> None:
    model = sharp_model(tmp_path / family, family)
    prompts = some_prompts()
    want = one_by_one(model, prompts)
    assert want.std() > 3, "the test would not see a leak between nearly equal scores"
    network = Network(model)
    with network.evaluating():
        assert route(network, 160) == "tree"
        for batch_tokens in (10, 250, 5000):
            got = score_labels(network, prompts, TRIE, batch_tokens=batch_tokens, tolerance=0.0)
            assert np.abs(got - want).max() < 1e-5
        assert np.abs(score_on_cache(network, prompts, SEQUENCES, batch_tokens=300) - want).max() < 1e-5
        assert np.abs(score_in_full(network, prompts, SEQUENCES, batch_tokens=300) - want).max() < 1e-5


@pytest.fixture(scope="module")
def sharp(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    return sharp_model(tmp_path_factory.mktemp("sharp"))


@pytest.fixture(scope="module")
def sharper(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    """Sure of itself, as a tuned model is."""
    return sharp_model(tmp_path_factory.mktemp("sharper"), logits=8)


def liked_trie(model: torch.nn.Module, prompts: list[list[int]]) -> LabelTrie:
    """Some labels at random and some that the model would say itself, as a tuned model does."""
    sequences = [tuple(s) for s in SEQUENCES]
    for prompt in prompts[:4]:
        ids = list(prompt)
        for _ in range(5):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        sequences.append(tuple(ids[-5:]))
        sequences.append((*ids[-5:-3], 77, 78, 79))
    unique = list(dict.fromkeys(sequences))
    return LabelTrie([str(k) for k in range(len(unique))], unique)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_what_is_left_out_moves_no_probability_by_more_than_stated(sharper: torch.nn.Module, tolerance: float) -> None:
    network, counts, all_ = Network(sharper), Counts(), Counts()
    for seed in range(6):
        prompts = some_prompts(seed)
        trie = liked_trie(sharper, prompts)
        with network.evaluating():
            exact = score_labels(network, prompts, trie, batch_tokens=400, tolerance=0.0, counts=all_)
            quick = score_labels(network, prompts, trie, batch_tokens=400, tolerance=tolerance, counts=counts)
        assert np.abs(softmax(quick) - softmax(exact)).sum(axis=1).max() < 2 * tolerance
        assert (quick >= exact - 1e-3).all(), "an entry is the score or an upper bound of it"
        assert (quick.argmax(1) == exact.argmax(1)).all()
    assert counts.nodes < 0.9 * all_.nodes, "too little was left out to test anything"


def test_the_winner_alone_is_the_winner(sharper: torch.nn.Module) -> None:
    network, counts, all_ = Network(sharper), Counts(), Counts()
    for seed in range(6):
        prompts = some_prompts(seed)
        trie = liked_trie(sharper, prompts)
        with network.evaluating():
            exact = score_labels(network, prompts, trie, batch_tokens=400, tolerance=0.0, counts=all_)
            quick = score_labels(network, prompts, trie, batch_tokens=99, tolerance=len(trie.labels), counts=counts)
        assert (quick.argmax(1) == exact.argmax(1)).all()
        assert np.abs(quick.max(1) - exact.max(1)).max() < 1e-3
    assert counts.nodes < 0.5 * all_.nodes


@pytest.mark.parametrize("seed", range(3))
def test_the_layout_does_not_change_the_answer(sharp: torch.nn.Module, seed: int) -> None:
    rng = random.Random(seed)
    prompts = some_prompts(seed, lengths=tuple(rng.randrange(1, 60) for _ in range(12)))
    model = LanguageModel(sharp, Numbers())
    want = {tuple(p): model.choose([message(p)], LABELS, batch_tokens=64, exact=True)[0] for p in prompts}
    for _ in range(3):
        rng.shuffle(prompts)
        kept = prompts[: rng.randrange(2, len(prompts))]
        found = model.choose([message(p) for p in kept], LABELS, batch_tokens=rng.choice([16, 100, 1000]))
        for prompt, answer in zip(kept, found, strict=True):
            assert answer.text == want[tuple(prompt)].text
            assert answer.probabilities == pytest.approx(want[tuple(prompt)].probabilities, abs=2e-6)


def test_answers_carry_the_counts_and_probabilities_in_the_order_of_the_labels(sharp: torch.nn.Module) -> None:
    prompts = some_prompts()
    found = LanguageModel(sharp, Numbers()).choose([message(p) for p in prompts], LABELS, batch_tokens=500)
    chances = softmax(one_by_one(sharp, prompts))
    for i, answer in enumerate(found):
        best = int(chances[i].argmax())
        assert answer.text == LABELS[best]
        assert answer.probabilities is not None
        assert np.abs(np.array(answer.probabilities) - chances[i]).max() < 1e-5
        assert sum(answer.probabilities) == pytest.approx(1)
        assert answer.confidence == max(answer.probabilities)
        assert (answer.prompt_tokens, answer.answer_tokens) == (len(prompts[i]), len(SEQUENCES[best]))
        assert answer.finish == "label"
        assert answer.seconds > 0
    quick = LanguageModel(sharp, Numbers()).choose(
        [message(p) for p in prompts], LABELS, batch_tokens=500, probabilities=False
    )
    assert [a.text for a in quick] == [a.text for a in found]
    assert {(a.probabilities, a.confidence) for a in quick} == {(None, None)}
    assert [a.logprob for a in quick] == pytest.approx([a.logprob for a in found], abs=1e-5)


def test_a_model_in_training_is_left_as_found(tiny_llama: Path, tmp_path: Path) -> None:
    base = sharp_model(tmp_path / "model")
    spec = MethodSpec(kind="lora", rank=4, alpha=8.0, dropout=0.5, targets="all-linear")
    model = methods.wrap(base.train(), spec, seed=0)
    model.get_base_model().model.norm.eval()  # a mixed mode must come back mixed
    modes = {n: m.training for n, m in model.named_modules()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05)
    found = LanguageModel(model, Numbers()).choose([message(p) for p in some_prompts()], LABELS, batch_tokens=300)
    again = LanguageModel(model, Numbers()).choose([message(p) for p in some_prompts()], LABELS, batch_tokens=300)
    assert [a.probabilities for a in found] == [a.probabilities for a in again], "dropout was on"
    assert {n: m.training for n, m in model.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    loss = model(torch.tensor([[5, 6, 7]])).logits.sum()
    loss.backward()  # nothing that was cached while answering is in its way
    merged = methods.merge(model, spec).eval()
    plain = LanguageModel(merged, Numbers()).choose([message(p) for p in some_prompts()], LABELS, batch_tokens=300)
    assert [a.text for a in plain] == [a.text for a in found]


def test_bf16_normalises_in_float32(tiny_llama: Path, tmp_path: Path) -> None:
    model = sharp_model(tmp_path / "model").to(torch.bfloat16)
    for answer in LanguageModel(model, Numbers()).choose(
        [message(p) for p in some_prompts()], LABELS, batch_tokens=300
    ):
        assert sum(answer.probabilities or ()) == pytest.approx(1, abs=1e-12)


def test_repeated_labels_and_overlong_prompts_are_refused(sharp: torch.nn.Module) -> None:
    model = LanguageModel(sharp, Numbers())
    with pytest.raises(InputError, match="is given twice"):
        model.choose([message([5])], ["1 2", "1 2"], batch_tokens=100)
    with pytest.raises(InputError) as e:
        model.choose([message([5]), message([5] * 510), message([6] * 600)], LABELS, batch_tokens=100)
    assert [p.where for p in e.value.problems] == ["prompt 2", "prompt 3"]
    assert "510 tokens and its answer up to 7, more than the 512" in str(e.value)
    with pytest.raises(InputError, match="has no tokens"):
        model.choose([[]], LABELS, batch_tokens=100)
    assert model.choose([], LABELS, batch_tokens=100) == []


@pytest.mark.parametrize(
    ("family", "expected", "overrides"),
    [
        ("bloom", "cache", {"hidden_size": 48, "n_layer": 2, "n_head": 4}),
        ("mamba", "plain", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    ],
)
def test_models_that_take_no_mask_of_ours_go_the_slower_right_way(
    family: str, expected: str, overrides: dict[str, object], tmp_path: Path
) -> None:
    model = sharp_model(tmp_path / family, family, **overrides)
    network, prompts = Network(model), some_prompts(lengths=(3, 9, 30, 1))
    with network.evaluating():
        assert route(network, 60) == expected
        got = label_scores(network, prompts, TRIE, batch_tokens=300, tolerance=1e-6)
    assert np.abs(got - one_by_one(model, prompts)).max() < 1e-4


def test_a_sliding_window_shorter_than_the_sequence_is_respected(tmp_path: Path) -> None:
    model = sharp_model(tmp_path / "m", "mistral", sliding_window=16)
    network, prompts = Network(model), some_prompts(lengths=(3, 9, 30))
    assert network.window == 16
    with network.evaluating():
        assert route(network, 60) == "plain"
        got = label_scores(network, prompts, TRIE, batch_tokens=300, tolerance=0.0)
    assert np.abs(got - one_by_one(model, prompts)).max() < 1e-5
    whole = sharp_model(tmp_path / "w", "mistral", sliding_window=None)
    assert np.abs(got - one_by_one(whole, prompts)).max() > 0.1, "the window made no difference"


def test_a_wrong_way_is_noticed(sharp: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the masks let a label see another one, the trial refuses the tree."""
    monkeypatch.setattr(routes, "_known", {})
    real = routes.score_labels

    def leaking(*args: object, **kwargs: object) -> np.ndarray:
        with monkeypatch.context() as m:
            m.setattr(
                "tunesmith.model.scoring._Batch._mask",
                lambda self, new, columns: torch.ones(*new.owner.shape, columns.owner.shape[1], dtype=torch.bool).tril(
                    columns.owner.shape[1] - new.owner.shape[1]
                ),
            )
            return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(routes, "score_labels", leaking)
    network = Network(sharp)
    with network.evaluating():
        assert route(network, 60) == "cache"


def test_common_beginning_leaves_a_token_of_each_prompt() -> None:
    assert common_beginning([(1,) * 20, (1,) * 12]) == 11
    assert common_beginning([(1,) * 12 + (2,), (1,) * 12 + (3,)]) == 12
    assert common_beginning([(1, 2, 3), (1, 2, 4)]) == 0, "too short to be worth a pass"
    assert common_beginning([(1,) * 20]) == 0


def test_batches_hold_every_prompt_once_within_their_budget() -> None:
    rng = random.Random(0)
    unique = sorted({tuple(rng.randrange(9) for _ in range(rng.randrange(1, 80))) for _ in range(60)}, key=len)[::-1]
    for budget in (1, 50, 400, 4000):
        found = batches(unique, 0, TRIE, 10_000, budget)
        assert [p for rows in found for row in rows for p in row] == unique
        for rows in found:
            width = max(sum(map(len, row)) for row in rows)
            assert len(rows) == 1 or width * len(rows) <= budget


def test_groups_leave_out_idle_rows_and_keep_padding_low() -> None:
    counts = [0, 400, 390, 0, 30, 410, 28, 0]
    found = groups(counts)
    assert sorted(r for g in found for r in g) == [1, 2, 4, 5, 6]
    for group in found:
        padded, real = len(group) * max(counts[r] for r in group), sum(counts[r] for r in group)
        assert padded <= 1.1 * real or real < 192
    assert groups([0, 0]) == []
