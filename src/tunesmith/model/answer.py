"""A language model that answers: the likeliest of some labels with its probability, or generated text.

    model = LanguageModel(load_base(folder, dtype="fp32"), Renderer.load(folder, system="..."))
    model.choose(prompts, labels, batch_tokens=4096)
    model.generate(prompts, max_new_tokens=64, batch_tokens=4096)

Works on a model in training too: mode, gradients and random state stay as found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tunesmith.core.errors import InputError, Problem, require
from tunesmith.core.nouns import Answer, Message
from tunesmith.core.stage import Clock
from tunesmith.model.forward import Network
from tunesmith.model.generating import Sampling, generate
from tunesmith.model.routes import label_scores
from tunesmith.model.trie import LabelTrie

Tools = Sequence[dict[str, Any]]  # functions declared to the model, in OpenAI's form
TOLERANCE = 1e-6  # in probability; see choose


class Renders(Protocol):
    """What is asked of text.render.Renderer; anything that spells prompts and answers will do."""

    stop_ids: frozenset[int]

    def prompt(self, messages: Sequence[Message], tools: Tools = ()) -> list[int]: ...
    def answer(self, target: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


class LanguageModel:
    """Not for several threads at once."""

    def __init__(self, model: Any, renderer: Renders) -> None:
        self.network = Network(model)
        self.renderer = renderer

    def choose(
        self,
        prompts: Sequence[Sequence[Message]],
        labels: Sequence[str],
        *,
        tools: Sequence[Tools] | None = None,
        batch_tokens: int,
        exact: bool = False,
        probabilities: bool = True,
    ) -> list[Answer]:
        """One label for each prompt: the one with the greatest P(label | prompt, one of the labels).

        P is the softmax over labels of the summed log-probabilities of the label's tokens, stop token
        included. Without `exact` a label that can no longer hold 1e-6 / len(labels) is not finished: it gets
        its upper bound instead, which moves no probability by more than 1e-6 and never the winner. Without
        `probabilities` (and so without confidence) a label is left as soon as it cannot win: the same winners,
        about three times sooner on a tuned model.
        `tools`: those of each prompt. `batch_tokens`: padded prompt tokens in one forward pass; the answers do not depend on it.
        Raises InputError for repeated labels, and for prompts longer than the model's context.
        """
        clock = Clock()
        if not prompts:
            return []
        trie = LabelTrie(labels, [self.renderer.answer(label) for label in labels])
        ids = self._prompts(prompts, tools)
        self._refuse_long(ids, max(trie.depths) - 1)
        tolerance = 0.0 if exact else TOLERANCE if probabilities else float(len(labels))
        with self.network.evaluating():
            scores = label_scores(self.network, ids, trie, batch_tokens=batch_tokens, tolerance=tolerance)
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        best = scores.argmax(axis=1)
        share = clock.seconds / len(prompts)
        return [
            Answer(
                text=labels[k],
                probabilities=tuple(map(float, chances[i])) if probabilities else None,
                confidence=float(chances[i, k]) if probabilities else None,
                logprob=float(scores[i, k]),
                prompt_tokens=len(ids[i]),
                answer_tokens=len(trie.paths[k]),
                seconds=share,
                finish="label",
            )
            for i, k in enumerate(map(int, best))
        ]

    def generate(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        tools: Sequence[Tools] | None = None,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        batch_tokens: int,
    ) -> list[Answer]:
        """Text for each prompt, up to a stop token, a `stop` string (left out) or `max_new_tokens`.

        Temperature 0 takes the likeliest token each time. Otherwise item i draws from a generator seeded by
        (seed, i) alone. `confidence` is exp(mean log-probability) of the answer's tokens; `batch_tokens` are
        padded tokens, answers included, that a batch may come to hold.
        Raises InputError for prompts that leave no room for `max_new_tokens`.
        """
        clock = Clock()
        require(max_new_tokens >= 1, "max_new_tokens", max_new_tokens, "a positive integer")
        if not prompts:
            return []
        ids = self._prompts(prompts, tools)
        self._refuse_long(ids, max_new_tokens)
        sampling = Sampling(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            stop=tuple(stop),
            stop_ids=self.renderer.stop_ids,
        )
        with self.network.evaluating():
            texts = generate(self.network, ids, sampling, self.renderer.decode, batch_tokens=batch_tokens)
        share = clock.seconds / len(prompts)
        return [
            Answer(
                text=self.renderer.decode(text.ids) if text.cut is None else text.cut,
                confidence=math.exp(text.logprob / len(text.ids)),
                logprob=text.logprob,
                prompt_tokens=len(ids[i]),
                answer_tokens=len(text.ids),
                seconds=share,
                finish="stop" if text.finish == "stop" else "length",
            )
            for i, text in enumerate(texts)
        ]

    def _prompts(self, prompts: Sequence[Sequence[Message]], tools: Sequence[Tools] | None) -> list[list[int]]:
        if tools is None or not any(tools):
            return [self.renderer.prompt(p) for p in prompts]
        return [self.renderer.prompt(p, t) for p, t in zip(prompts, tools, strict=True)]

    def _refuse_long(self, prompts: Sequence[Sequence[int]], more: int) -> None:
        limit = self.network.limit
        problems = [
            Problem(
                where=f"prompt {i + 1}",
                what=f"has {len(p)} tokens and its answer up to {more}, more than the {limit} the model can hold",
                fix="shorten the text or the system prompt",
            )
            for i, p in enumerate(prompts)
            if limit is not None and len(p) + more > limit
        ]
        problems += [
            Problem(where=f"prompt {i + 1}", what="has no tokens", fix="give it some text")
            for i, p in enumerate(prompts)
            if not p
        ]
        if problems:
            raise InputError(problems)
