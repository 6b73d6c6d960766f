"""The bundles that one engine answers for, each as a voice: on one model, or on adapters that share a base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from tunesmith.core.nouns import Message
from tunesmith.model.answer import LanguageModel
from tunesmith.model.forward import Network
from tunesmith.model.methods import prompts
from tunesmith.model.several import Several
from tunesmith.serve.bundle import LoadedBundle
from tunesmith.serve.slots import Prefix, Slots, Under, as_loaded

PROBE_TOLERANCE = 0.02  # of the largest logit: far above rounding, far below a wrong mask or position


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Voice:
    """A bundle, and what the engine needs to answer as it."""

    bundle: LoadedBundle
    adapter: str | None  # that changes the base's layers; None: the model as it is, or the base after virtual tokens
    prefix: Prefix  # what every prompt with the bundle's own system prompt begins with
    bare: Prefix  # what any prompt begins with: nothing, or virtual tokens
    language_model: LanguageModel


class Voices:
    """All bundles of one engine. Only the engine's thread may use it."""

    def __init__(self, bundles: Sequence[LoadedBundle]) -> None:
        """Computes what prompts begin with, and whether a batch changes what its rows get."""
        self.several: Several | None = bundles[0].several
        self.network = Network(prompts.bare(bundles[0].model) if self.several is None else self.several.bare)
        self.under: Under = as_loaded if self.several is None else self._under
        self._voices: dict[LoadedBundle, Voice] = {}
        for bundle in bundles:
            self._voices[bundle] = self._voice(bundle)
        self.batches = self.mixes = True
        self.prove()

    def __getitem__(self, bundle: LoadedBundle) -> Voice:
        return self._voices[bundle]

    def __len__(self) -> int:
        return len(self._voices)

    def add(self, bundle: LoadedBundle) -> None:
        """Another bundle whose adapter is on the base already."""
        self._voices[bundle] = self._voice(bundle)
        self.prove()

    def remove(self, bundle: LoadedBundle) -> None:
        """And its adapter from the base."""
        del self._voices[bundle]
        if self.several is not None and bundle.adapter is not None:
            self.several.remove(bundle.adapter)

    def together(self, one: LoadedBundle, other: LoadedBundle) -> bool:
        """Whether answers of both may be in one batch."""
        return one is other or (self.mixes and self._apart(one) == self._apart(other) == "")

    def prove(self) -> None:
        """Try batches of one voice, and of all that may be mixed: an architecture whose masks or positions don't
        follow ours fails here, not in front of a user."""
        voices = list(self._voices.values())
        mixable = [v for v in voices if not self._apart(v.bundle)]
        self.batches = batching_is_exact(self.network, [voices[0].prefix], self.under)
        self.mixes = len(mixable) < 2 or batching_is_exact(self.network, [v.prefix for v in mixable], self.under)

    def _apart(self, bundle: LoadedBundle) -> str:
        """Why its answers are in no batch with others'; "" where they may be."""
        return "" if self.several is None or bundle.adapter is None else self.several.why_apart(bundle.adapter)

    def _voice(self, bundle: LoadedBundle) -> Voice:
        several = self.several
        if several is None or bundle.adapter is None:
            language_model, name = LanguageModel(bundle.model, bundle.renderer), None
            before = prompts.before(bundle.model)
        else:
            several.use(bundle.adapter)
            language_model = LanguageModel(several.model, bundle.renderer)
            before = several.before(bundle.adapter)
            name = None if before else bundle.adapter
        return Voice(
            bundle=bundle,
            adapter=name,
            prefix=Prefix(self.network, common_prefix(bundle), adapter=name, before=before, under=self.under),
            bare=Prefix(self.network, (), adapter=name, before=before),
            language_model=language_model,
        )

    @contextmanager
    def _under(self, names: Sequence[str | None]) -> Iterator[None]:
        """One adapter is swapped in, which costs nothing where it is there already; several are mixed."""
        assert self.several is not None
        if len(set(names)) > 1:
            with self.several.mixed(names):
                yield
            return
        if self.several.active != names[0]:
            self.several.use(names[0])
        yield


def common_prefix(bundle: LoadedBundle) -> list[int]:
    """The tokens every prompt with the bundle's own system prompt begins with."""
    first, second = (bundle.renderer.prompt([Message(role="user", content=text)]) for text in ("a", "7"))
    n = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 0)
    return first[:n]


def batching_is_exact(network: Network, prefixes: Sequence[Prefix], under: Under = as_loaded) -> bool:
    """Whether ragged rows in one block get the logits that each gets alone, over a join, two steps and a leave.

    `prefixes` go to the rows in turn, at least three rows and one for each.
    """
    seed = [t for t in range(3, 40)]
    count = max(3, len(prefixes))
    whose = [prefixes[i % len(prefixes)] for i in range(count)]
    prompts = [[*whose[i].ids, *seed[:9]] if i % 3 == 0 else seed[: 3 if i % 3 == 1 else 25] for i in range(count)]
    together = Slots(network, whose[0], under)
    got = [torch.cat([together.join(prompts[:2], whose[:2]), together.join(prompts[2:], whose[2:])])]
    got.append(together.step([7 + i for i in range(count)]))
    stay = [i for i in range(count) if i != 1]
    together.keep(stay)
    got.append(together.step([7 + count + i for i in stay]))
    for i, (prompt, prefix) in enumerate(zip(prompts, whose, strict=True)):
        alone = Slots(network, _without_ids(network, prefix), under)
        want = [alone.join([prompt]), alone.step([7 + i])]
        rows = [got[0][i], got[1][i]]
        if i != 1:
            want.append(alone.step([7 + count + i]))
            rows.append(got[2][stay.index(i)])
        for row, logits in zip(rows, want, strict=True):
            if float((row - logits[0]).abs().max()) > PROBE_TOLERANCE * max(1.0, float(logits.abs().max())):
                return False
    return True


def _without_ids(network: Network, prefix: Prefix) -> Prefix:
    before = [(k[:, :, : prefix.virtual], v[:, :, : prefix.virtual]) for k, v in prefix.pairs] if prefix.virtual else []
    return Prefix(network, (), adapter=prefix.adapter, before=before)
