"""A model folder's tokenizer: text to token ids, where special tokens are never made from ordinary text.

`tokenizer.json` is loaded by the `tokenizers` library alone, so nothing here needs torch or transformers. It is
taken at its word: transformers 5 replaces what some files say (with "tokenizer_class": "LlamaTokenizer" and no
"legacy": true it adds no space after a special token, where the file, llama.cpp and the makers' code do).
The strings of special tokens (`<|im_end|>`, `</s>`) mean those tokens only where the chat template wrote
them. To tell the two apart, every special token gets a stand-in at loading: a second spelling that nobody
else can know, with the same matching rules. Special strings in ordinary text are then just text, and what
the template wrote is respelled with stand-ins before encoding.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from tunesmith.core.errors import ModelError
from tunesmith.text.growth import grown

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
TEMPLATES = ("chat_template.jinja", "tokenizer_config.json", "chat_template.json")  # the first that has one counts


class Tokenizer:
    """Loaded with `Tokenizer.load(folder)`; immutable afterwards and safe to use from several threads."""

    def __init__(self, folder: Path, source: str, facts: dict[str, Any], new_tokens: Sequence[str] = ()):
        """`source`: tokenizer.json, with `new_tokens` in it already."""
        self.folder = folder
        self.source = source
        self.new_tokens = tuple(new_tokens)
        self.sha256 = hashlib.sha256(source.encode("utf-8")).hexdigest()
        try:
            core = tokenizers.Tokenizer.from_str(source)
        except Exception as e:  # the library raises bare Exception
            where = str(folder / "tokenizer.json")
            raise ModelError(f"not a tokenizer: {e}", where=where, fix="fetch the model again") from e
        self.names = {n: text for n in NAMES if (text := _text(facts.get(n)))}  # "eos_token" -> "<|im_end|>"
        core.no_truncation()
        core.no_padding()
        self._core = core
        self.specials = self._make_special(facts)  # text -> id
        self.special_ids = frozenset(self.specials.values())
        vocabulary = core.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values()) + 1
        self.eos_ids = self._eos_ids(facts)
        self.eos_id = self.eos_ids[0]
        self.pad_id = self.specials.get(self.names.get("pad_token", ""), self.eos_id)
        self.bos_ids = self._bos_ids(facts)
        self._stand_ins = self._add_stand_ins()
        self._special = re.compile("|".join(map(re.escape, sorted(self.specials, key=len, reverse=True))) or "(?!)")

    @classmethod
    def load(cls, folder: Path, new_tokens: Sequence[str] = ()) -> Tokenizer:
        """With `new_tokens`, those that the file lacks come after its own: text/growth.py. Raises ModelError when a
        file is missing or unreadable, or no end-of-sequence token is named."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(
                "the model folder has no tokenizer.json",
                where=str(folder),
                fix="write one: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
            )
        try:
            source = path.read_bytes().decode("utf-8")
            if new_tokens:
                source = grown(source, new_tokens)
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise ModelError(f"not a tokenizer: {e}", where=str(path), fix="fetch the model again") from e
        facts: dict[str, Any] = {}
        for name in ("config.json", "generation_config.json", "special_tokens_map.json", "tokenizer_config.json"):
            facts.update({k: v for k, v in _read(folder / name).items() if v is not None})
        return cls(folder, source, facts, new_tokens)

    def with_tokens(self, tokens: Sequence[str]) -> Tokenizer:
        """This one, from the same folder, with `tokens` as tokens of their own."""
        return Tokenizer.load(self.folder, tokens)

    def id_of(self, token: str) -> int | None:
        """The id of a token by its exact entry in the vocabulary."""
        id = self._core.token_to_id(token)
        return id if id is not None and id < self.vocab_size else None

    # -- encoding ---------------------------------------------------------------------------------------

    def find_special(self, text: str, start: int = 0) -> re.Match[str] | None:
        """The first string of a special token in `text`; longest at its place, as the tokenizer itself would."""
        return self._special.search(text, start)

    def break_specials(self, text: str, mark: str) -> str:
        """`text` with `mark` put into every string of a special token, so that a search does not find it."""
        if self._special.search(text) is None:
            return text
        return self._special.sub(lambda m: m[0][0] + mark + m[0][1:], text)

    def respell(self, text: str) -> str:
        """`text` with every string of a special token replaced by its stand-in: what `encode` understands."""
        return self._special.sub(lambda m: self._stand_ins[m[0]], text)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, in which only stand-ins are special tokens. Adds nothing of its own."""
        return self._real(self._core.encode(text, add_special_tokens=False).ids)

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._real(e.ids) for e in self._core.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_placed(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and each one's (start, end) in characters of `text`."""
        encoding = self._core.encode(text, add_special_tokens=False)
        return self._real(encoding.ids), encoding.offsets

    def _real(self, ids: list[int]) -> list[int]:
        size, stand_in = self.vocab_size, self._ids_of_stand_ins
        return [stand_in[i] if i >= size else i for i in ids]

    # -- decoding ---------------------------------------------------------------------------------------

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; special tokens, and ids beyond the vocabulary (padded embeddings), are left out."""
        special, size = self.special_ids, self.vocab_size
        return self._core.decode([i for i in ids if i < size and i not in special], skip_special_tokens=False)

    def piece(self, id: int) -> str:
        """One token as a person reads it: its text where it has one of its own, else its vocabulary entry."""
        if id >= self.vocab_size or (entry := self._core.id_to_token(id)) is None:
            return f"<no token {id}>"
        if id in self.special_ids:
            return entry
        text = self._core.decode([id], skip_special_tokens=False)
        if entry.startswith("▁") and not text.startswith(" "):
            text = " " + text  # decoders of SentencePiece models swallow a first space
        return entry if not text or "\N{REPLACEMENT CHARACTER}" in text else text

    # -- loading ----------------------------------------------------------------------------------------

    def _make_special(self, facts: dict[str, Any]) -> dict[str, int]:
        """Every token that must not be made from ordinary text, including those that only the config names."""
        added = self._core.get_added_tokens_decoder()
        known = {token.content: token for token in added.values()}
        wanted = {token.content for token in added.values() if token.special} | set(self.names.values())
        for listed in (facts.get("additional_special_tokens"), facts.get("extra_special_tokens")):
            values = listed.values() if isinstance(listed, dict) else listed or ()
            wanted |= {text for v in values if (text := _text(v))}
        for entry in (facts.get("added_tokens_decoder") or {}).values():
            if isinstance(entry, dict) and entry.get("special") and (text := _text(entry)):
                wanted.add(text)
        specials = {}
        for text in sorted(wanted):
            if len(text) < 2 or (id := self._core.token_to_id(text)) is None:
                continue  # a single character is ordinary text; and a name may be of a token that does not exist
            specials[text] = id
            token = known.get(text)
            if token is None or not token.special:
                self._core.add_special_tokens([_copy(token, text, special=True)])
        return specials

    def _add_stand_ins(self) -> dict[str, str]:
        nonce = secrets.token_hex(8)  # so that no text can spell a stand-in; ids do not depend on it
        known = {token.content: token for token in self._core.get_added_tokens_decoder().values()}
        self._core.encode_special_tokens = True  # special=True tokens are text from here on; stand-ins are not
        stand_ins = {text: f"\ufdef{nonce}{i}\ufdef" for i, text in enumerate(self.specials)}
        self._core.add_tokens([_copy(known.get(text), s, special=False) for text, s in stand_ins.items()])
        self._ids_of_stand_ins = {self._id(s): self.specials[text] for text, s in stand_ins.items()}
        if min(self._ids_of_stand_ins, default=self.vocab_size) < self.vocab_size:
            raise ModelError(
                "the vocabulary has gaps in its ids, which the tokenizers library cannot add tokens to",
                where=str(self.folder / "tokenizer.json"),
                fix="use a model folder with a complete tokenizer.json",
            )
        return stand_ins

    def _id(self, text: str) -> int:
        """The id of a token that is known to be there."""
        id = self._core.token_to_id(text)
        assert id is not None, text
        return id

    def _eos_ids(self, facts: dict[str, Any]) -> list[int]:
        """The tokenizer's end-of-sequence token first, then those of the generation settings."""
        listed = facts.get("eos_token_id")
        ids = [i for i in (listed if isinstance(listed, list) else [listed]) if isinstance(i, int)]
        if (named := self._core.token_to_id(self.names.get("eos_token", ""))) is not None:
            ids = [named, *(i for i in ids if i != named)]
        if not ids:
            raise ModelError(
                "no end-of-sequence token is named, so an answer could never end",
                where=str(self.folder / "tokenizer_config.json"),
                fix='name one: "eos_token": "</s>"',
            )
        self.names.setdefault("eos_token", self._core.id_to_token(ids[0]) or "")
        return ids

    def _bos_ids(self, facts: dict[str, Any]) -> list[int]:
        """What this tokenizer puts before plain text: a begin-of-sequence token, or nothing."""
        bos = self._core.token_to_id(self.names.get("bos_token", ""))
        if bos is None or facts.get("add_bos_token") is False:
            return []
        first = self._core.encode("", add_special_tokens=True).ids[:1]
        return [bos] if facts.get("add_bos_token") or first == [bos] else []


def read_template(folder: Path) -> tuple[str, str] | None:
    """The chat template and the file it is in; chat_template.jinja beats tokenizer_config.json."""
    for name in TEMPLATES:
        path = folder / name
        if not path.is_file():
            continue
        found = path.read_text(encoding="utf-8") if path.suffix == ".jinja" else _read(path).get("chat_template")
        if isinstance(found, list):  # several, by name
            found = next((t.get("template") for t in found if t.get("name") == "default"), None)
        if isinstance(found, str) and found.strip():
            return found, str(path)
    return None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as e:
        raise ModelError(f"cannot be read: {e}", where=str(path), fix="fetch the model again") from e
    if not isinstance(value, dict):
        raise ModelError("is not a JSON object", where=str(path), fix="fetch the model again")
    return value


def _text(value: Any) -> str:
    """Special tokens are written as text, or as an object with "content"."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def _copy(token: tokenizers.AddedToken | None, text: str, *, special: bool) -> tokenizers.AddedToken:
    """A token with the matching rules of `token`, or the usual ones of a special token."""
    make: Callable[..., tokenizers.AddedToken] = tokenizers.AddedToken
    if token is None:
        return make(text, special=special, normalized=False)
    return make(
        text,
        special=special,
        normalized=token.normalized,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        single_word=token.single_word,
    )
