"""Answers of a classification bundle: the label, as it was evaluated, told in the shape of generated text.

Label jobs of one bundle that wait are scored together by LanguageModel.choose, the same code that evaluation runs.
Where jobs of several adapters on one base wait, all of them go in one pass: see mixed_labels.py.
Temperature 0 (the default) answers with the likeliest label; above it a label is drawn from the labels'
distribution, so `temperature`, `top_p`, `seed` and `n` keep their meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from tunesmith.core.nouns import Answer
from tunesmith.model.routes import route
from tunesmith.model.sampling import sample, top_logprobs
from tunesmith.model.trie import LabelTrie
from tunesmith.serve.detokenize import TextStream
from tunesmith.serve.mixed_labels import Asked, score
from tunesmith.serve.scheduler import Event, Finished, Job, Piece, TokenLogprob
from tunesmith.serve.slots import Slots
from tunesmith.serve.voices import Voice, Voices

Tell = Callable[[Job, Event], None]


class LabelScorer:
    """Scores jobs over their bundles' labels. `batch_tokens`: padded tokens in one forward pass."""

    def __init__(self, voices: Voices, *, batch_tokens: int) -> None:
        self._voices = voices
        self._batch_tokens = batch_tokens

    def answer(self, jobs: Sequence[tuple[Voice, Job]], tell: Tell) -> None:
        """Equal prompts (n answers to one question) are scored once."""
        places = dict.fromkeys((voice, job.prompt) for voice, job in jobs)
        first = {(voice, job.prompt): job for voice, job in reversed(jobs)}
        by_voice: dict[Voice, list[Job]] = {}
        for place in places:
            by_voice.setdefault(place[0], []).append(first[place])
        answers: dict[tuple[Voice, tuple[int, ...]], Answer] = {}
        mixed = [v for v in by_voice if self._mixable(v, by_voice)]
        if len(mixed) > 1:
            asked = [Asked(v.bare, job.prompt, trie_of(v)) for v in mixed for job in by_voice[v]]
            scores = iter(score(self._voices.network, asked, self._voices.under, batch_tokens=self._batch_tokens))
            answers = {(v, job.prompt): as_answer(v, next(scores)) for v in mixed for job in by_voice[v]}
        for voice, some in by_voice.items():
            if (voice, some[0].prompt) not in answers:
                with self._voices.under([voice.adapter]):
                    found = voice.language_model.choose(
                        [job.messages for job in some], voice.bundle.labels, batch_tokens=self._batch_tokens
                    )
                answers |= {(voice, job.prompt): a for job, a in zip(some, found, strict=True)}
        for voice, job in jobs:
            self._tell_label(voice, job, answers[voice, job.prompt], tell)

    def _mixable(self, voice: Voice, by_voice: dict[Voice, list[Job]]) -> bool:
        """Whether its jobs can be scored in one pass with others': the adapter's nature, and the model's masks."""
        if not any(self._voices.together(voice.bundle, other.bundle) for other in by_voice if other is not voice):
            return False
        longest = max(len(job.prompt) for job in by_voice[voice]) + voice.prefix.virtual
        return route(self._voices.network, longest + max(trie_of(voice).depths)) == "tree"

    def _tell_label(self, voice: Voice, job: Job, answer: Answer, tell: Tell) -> None:
        labels, probabilities = voice.bundle.labels, answer.probabilities or ()
        chosen = self._draw(job, probabilities) if job.sampling.temperature > 0 else labels.index(answer.text)
        ids = voice.bundle.renderer.answer(labels[chosen])
        logprobs = self._logprobs(voice, job, ids) if job.sampling.top_logprobs is not None else None
        reason, tokens = self._spell(voice, job, labels[chosen], ids, logprobs, tell)
        ranked = sorted(zip(labels, probabilities, strict=True), key=lambda pair: -pair[1])
        tell(job, Finished(reason, tokens, probabilities[chosen], tuple(ranked)))

    def _draw(self, job: Job, probabilities: Sequence[float]) -> int:
        scores = torch.tensor(probabilities, dtype=torch.float64).log()
        generator = torch.Generator().manual_seed(job.sampling.seed)
        return int(sample(scores, temperature=job.sampling.temperature, top_p=job.sampling.top_p, generator=generator))

    def _spell(
        self,
        voice: Voice,
        job: Job,
        label: str,
        ids: Sequence[int],
        logprobs: Sequence[TokenLogprob] | None,
        tell: Tell,
    ) -> tuple[Any, int]:
        """The label token by token, as if it had been generated: max_tokens and stop mean what they always mean."""
        renderer, limit = voice.bundle.renderer, job.sampling.max_new_tokens
        stream = TextStream(renderer.decode, job.sampling.stop, tail=renderer.layout.tail)
        pieces: list[Piece | None] = []
        used = 0
        for at, token in enumerate(ids[:limit]):
            used += 1
            if token not in renderer.stop_ids:
                pieces.append(stream.push(token, logprobs[at] if logprobs else None))
            if stream.stopped:
                break
        whole = used == len(ids) and not stream.stopped
        pieces.append(stream.finish(by_token=whole))
        if whole and not logprobs and "".join(p.text for p in pieces if p) != label:
            pieces = [Piece(label)]  # a tokenizer that does not give the text back must not misspell a label
        for piece in pieces:
            if piece:
                tell(job, piece)
        return ("stop" if whole or stream.stopped else "length"), used

    def _logprobs(self, voice: Voice, job: Job, ids: Sequence[int]) -> list[TokenLogprob]:
        """Of the label's tokens under the model: one more forward pass, only where they are asked for."""
        decode, top = voice.bundle.renderer.decode, job.sampling.top_logprobs or 0
        slots = Slots(self._voices.network, voice.bare, self._voices.under)
        logits = slots.join([job.prompt])[0]
        found = []
        for token in ids[:-1]:  # the stop token is not part of the text
            scores = torch.log_softmax(logits, dim=-1)
            others = tuple((decode([i]), v) for i, v in top_logprobs(scores, top)) if top else ()
            value = float(scores[token])
            found.append(TokenLogprob(decode([token]), value if math.isfinite(value) else -math.inf, others))
            logits = slots.step([token])[0]
        return found


def trie_of(voice: Voice) -> LabelTrie:
    bundle = voice.bundle
    return LabelTrie(bundle.labels, [bundle.renderer.answer(label) for label in bundle.labels])


def as_answer(voice: Voice, scores: np.ndarray) -> Answer:
    """As LanguageModel.choose gives it, from log P(label | prompt) of every label."""
    chances = np.exp(scores - scores.max())
    chances /= chances.sum()
    best = int(scores.argmax())
    return Answer(
        text=voice.bundle.labels[best], probabilities=tuple(map(float, chances)), confidence=float(chances[best])
    )
