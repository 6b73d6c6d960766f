"""Is a text too near a row that must not be trained on? Exact Jaccard of word shingles, against every such row."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

from tunesmith.data.validate import normalised

SIZE = 3  # words in a shingle; a shorter text is one shingle
_CJK = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
WORDS = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")  # scripts without spaces: each character counts as a word


def shingles(text: str) -> frozenset[int]:
    """64-bit hashes of the runs of three words, case and punctuation aside. Empty for a text without words."""
    words = WORDS.findall(normalised(text))
    if not words:
        return frozenset()
    runs = (words[i : i + SIZE] for i in range(max(1, len(words) - SIZE + 1)))
    return frozenset(int.from_bytes(blake2b("\x1f".join(run).encode(), digest_size=8).digest(), "big") for run in runs)


class Forbidden:
    """The rows of the other splits. Holds hashes and places, no texts."""

    def __init__(self) -> None:
        self._at: dict[int, array[int]] = {}  # shingle -> rows that have it
        self._sizes = array("q")
        self._names: list[str] = []

    def add(self, name: str, text: str) -> None:
        found = shingles(text)
        for shingle in found:
            self._at.setdefault(shingle, array("q")).append(len(self._sizes))
        self._sizes.append(len(found))
        self._names.append(name)

    def nearest(self, text: str) -> tuple[float, str]:
        """The highest Jaccard similarity and the row that has it; (0, "") where no shingle is shared."""
        found = shingles(text)
        shared: Counter[int] = Counter()
        for shingle in found:
            shared.update(self._at.get(shingle, ()))
        best, name = 0.0, ""
        for row, n in shared.items():
            similarity = n / (len(found) + self._sizes[row] - n)
            if similarity > best or (similarity == best and self._names[row] < name):
                best, name = similarity, self._names[row]
        return best, name

    @classmethod
    def of(cls, texts: Iterable[tuple[str, str]]) -> Forbidden:
        made = cls()
        for name, text in texts:
            made.add(name, text)
        return made
