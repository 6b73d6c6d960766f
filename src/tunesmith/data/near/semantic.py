"""Rows that mean much the same in other words: suggestions for a person, never removed by themselves.

Embeddings by any sentence encoder in Hugging Face form (mean over tokens, then unit length: Reimers and
Gurevych 2019), compared with all others exactly, in blocks: n^2 work, for up to some 100,000 rows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.canonical import read_lines
from tunesmith.core.errors import InputError
from tunesmith.core.nouns import Row
from tunesmith.core.stage import Workspace
from tunesmith.data.lines import excerpt
from tunesmith.data.write import LinesWriter

BATCH = 64  # texts
BLOCK = 2048  # rows compared at once
TOP = 5  # suggestions a row
MOST_ROWS = 200_000

Vectors = NDArray[np.float32]


def suggest(folder: Path, encoder: Path | None, least: float, work: Workspace, *, text: Callable[[Row], str]) -> None:
    """Write suggestions.jsonl: pairs of kept rows with a cosine of at least `least`, the most alike first."""
    if encoder is None:
        raise InputError("no encoder is named", where="data.dedup.semantic", fix="--set data.dedup.encoder=FOLDER")
    where: list[tuple[str, str]] = []
    texts: list[str] = []
    for row in read_lines(folder / "rows.jsonl", Row):
        where.append((f"{row.file}:{row.line}", excerpt(row.example.input)))
        texts.append(text(row))
        if len(texts) > MOST_ROWS:
            what = f"more than {MOST_ROWS:,} rows: every pair is compared"
            raise InputError(what, where="data.dedup.semantic", fix="--set data.dedup.semantic=0")
    found = alike(embed(texts, encoder, work), least)
    with LinesWriter(folder / "suggestions.jsonl") as out:
        for a, b, cosine in found:
            (here, this), (there, that) = where[a], where[b]
            out.write({"rows": [here, there], "texts": [this, that], "cosine": round(cosine, 4)})


def embed(texts: list[str], encoder: Path, work: Workspace) -> Vectors:
    """N x D, unit length. Raises InputError if the folder holds no encoder."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(encoder, local_files_only=True, trust_remote_code=False)
        model = AutoModel.from_pretrained(
            encoder, local_files_only=True, trust_remote_code=False, use_safetensors=True
        ).eval()
    except (OSError, ValueError) as e:
        raise InputError(f"holds no sentence encoder: {e}", where=str(encoder), fix="name a model folder") from e
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i]))  # equal lengths: little padding
    out = np.zeros((len(texts), model.config.hidden_size), np.float32)
    most = min(model.config.max_position_embeddings, 512)
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            tokens = tokenizer([texts[i] for i in chosen], padding=True, truncation=True, max_length=most, return_tensors="pt")  # fmt: skip
            hidden = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            out[chosen] = torch.nn.functional.normalize(mean, dim=1).numpy()
            work.stop_if_asked()
            work.progress(start, len(order), "embedding")
    return out


def alike(vectors: Vectors, least: float) -> list[tuple[int, int, float]]:
    """Pairs a < b among each row's TOP nearest, with a cosine of at least `least`; the most alike first."""
    pairs: dict[tuple[int, int], float] = {}
    for start in range(0, len(vectors), BLOCK):
        cosine = vectors[start : start + BLOCK] @ vectors.T
        cosine[np.arange(len(cosine)), np.arange(start, start + len(cosine))] = -1
        k = min(TOP, len(vectors) - 1)
        if k < 1:
            break
        top = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        for i, row in enumerate(top.tolist(), start=start):
            for j in row:
                if (near := float(cosine[i - start, j])) >= least:
                    pairs[min(i, j), max(i, j)] = near
    return sorted(((a, b, c) for (a, b), c in pairs.items()), key=lambda p: (-round(p[2], 4), p[0], p[1]))
