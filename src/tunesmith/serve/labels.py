"""Answers of a classification bundle: the label, as it was evaluated, told in the shape of generated text.

Label jobs that wait are scored together by LanguageModel.choose, the same code that evaluation runs.
Temperature 0 (the default) answers with the likeliest label; above it a label is drawn from the labels'
distribution, so `temperature`, `top_p`, `seed` and `n` keep their meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tunesmith.core.nouns import Answer
from tunesmith.model.answer import LanguageModel
from tunesmith.model.forward import Network
from tunesmith.model.sampling import sample, top_logprobs
from tunesmith.serve.bundle import LoadedBundle
from tunesmith.serve.detokenize import TextStream
from tunesmith.serve.scheduler import Event, Finished, Job, Piece, TokenLogprob
from tunesmith.serve.slots import Prefix, Slots

Tell = Callable[[Job, Event], None]


class LabelScorer:
    """Scores jobs over a bundle's labels. `batch_tokens`: padded tokens in one forward pass."""

    def __init__(self, bundle: LoadedBundle, network: Network, *, batch_tokens: int) -> None:
        self._bundle = bundle
        self._network = network
        self._language_model = LanguageModel(bundle.model, bundle.renderer)
        self._batch_tokens = batch_tokens

    def answer(self, jobs: Sequence[Job], tell: Tell) -> None:
        """Equal prompts (n answers to one question) are scored once."""
        places: dict[tuple[int, ...], Job] = {}
        for job in jobs:
            places.setdefault(job.prompt, job)
        if not places:
            return
        prompts = [job.messages for job in places.values()]
        answers = self._language_model.choose(prompts, self._bundle.labels, batch_tokens=self._batch_tokens)
        by_prompt = dict(zip(places, answers, strict=True))
        for job in jobs:
            self._tell_label(job, by_prompt[job.prompt], tell)

    def _tell_label(self, job: Job, answer: Answer, tell: Tell) -> None:
        labels, probabilities = self._bundle.labels, answer.probabilities or ()
        chosen = self._draw(job, probabilities) if job.sampling.temperature > 0 else labels.index(answer.text)
        ids = self._bundle.renderer.answer(labels[chosen])
        logprobs = self._logprobs(job, ids) if job.sampling.top_logprobs is not None else None
        reason, tokens = self._spell(job, labels[chosen], ids, logprobs, tell)
        ranked = sorted(zip(labels, probabilities, strict=True), key=lambda pair: -pair[1])
        tell(job, Finished(reason, tokens, probabilities[chosen], tuple(ranked)))

    def _draw(self, job: Job, probabilities: Sequence[float]) -> int:
        scores = torch.tensor(probabilities, dtype=torch.float64).log()
        generator = torch.Generator().manual_seed(job.sampling.seed)
        return int(sample(scores, temperature=job.sampling.temperature, top_p=job.sampling.top_p, generator=generator))

    def _spell(
        self, job: Job, label: str, ids: Sequence[int], logprobs: Sequence[TokenLogprob] | None, tell: Tell
    ) -> tuple[Any, int]:
        """The label token by token, as if it had been generated: max_tokens and stop mean what they always mean."""
        renderer, limit = self._bundle.renderer, job.sampling.max_new_tokens
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

    def _logprobs(self, job: Job, ids: Sequence[int]) -> list[TokenLogprob]:
        """Of the label's tokens under the model: one more forward pass, only where they are asked for."""
        decode, top = self._bundle.renderer.decode, job.sampling.top_logprobs or 0
        slots = Slots(self._network, Prefix(self._network, ()))
        logits = slots.join([job.prompt])[0]
        found = []
        for token in ids[:-1]:  # the stop token is not part of the text
            scores = torch.log_softmax(logits, dim=-1)
            others = tuple((decode([i]), v) for i, v in top_logprobs(scores, top)) if top else ()
            value = float(scores[token])
            found.append(TokenLogprob(decode([token]), value if math.isfinite(value) else -math.inf, others))
            logits = slots.step([token])[0]
        return found
