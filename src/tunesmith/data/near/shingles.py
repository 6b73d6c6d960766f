"""What two texts are compared by: the set of their word pairs, as sorted 32-bit hashes in flat arrays.

Words are runs of letters, digits and marks after NFKC and case folding. In scripts written without
spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) every character counts as a word, so that the same
code compares pairs of characters there. A text of one word is one shingle, and so is a text without any
("?!"). Short texts are alike only when they say nearly the same, on purpose: in "ticket 12" and "ticket 13"
one word is the message.

Why pairs and not triples or more: rows of training data are short. One word changed in the middle of a text
of 25 words leaves a similarity of 0.85 by pairs, 0.77 by triples and 0.64 by runs of five.

Jaccard similarity of two texts: shared shingles over all shingles of both (Broder 1997, "On the resemblance
and containment of documents"). Two different shingles share a hash once in 2^32: the chance that this moves
the similarity of two given texts of 170 words, by one shingle, is below one in a hundred thousand.

A text's shingles depend on the text alone: not on other rows, their order, or how they are chunked.
"""

from __future__ import annotations

import unicodedata
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

WORDS = 2  # in a shingle
CHUNK = 1 << 16  # characters hashed together: their arrays fit the processor's cache
TAKEN = 4096  # sets copied together
SPACELESS = (  # first and last code point of scripts without spaces between words
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF),
)  # fmt: skip
UNKNOWN, SEPARATOR, LETTER, WHOLE = 255, 0, 1, 2  # classes of characters; WHOLE: a word by itself
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
INVERSE = np.uint64(pow(int(BASE), -1, 1 << 64))
FACTORS = np.array([0xD6E8FEB86659FD93, 0xA0761D6478BD642F], np.uint64)  # one for each word of a shingle
ABSENT = np.uint64(0x8EBC6AF09C88C6E3)  # stands for a word that a short text does not have

Hashes = NDArray[np.uint32]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Shingles:
    """The shingle sets of N texts: those of text i are values[offsets[i]:offsets[i + 1]], ascending, no repeats."""

    values: Hashes
    offsets: Ints  # N + 1

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def sizes(self) -> Ints:
        return np.diff(self.offsets)

    def of(self, i: int) -> Hashes:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def take(self, rows: Ints, *, overwrite: bool = False) -> Shingles:
        """The sets of these rows, in this order. `overwrite`: in the room of these sets, which are gone then;
        rows ascending."""
        if len(rows) == len(self) and (np.diff(rows) == 1).all():
            return self
        offsets = np.concatenate([[0], np.cumsum(self.sizes[rows])])
        values = self.values[: int(offsets[-1])] if overwrite else np.empty(int(offsets[-1]), np.uint32)
        for at in range(0, len(rows), TAKEN):  # an index of all values at once would take more room than they do
            part = rows[at : at + TAKEN]
            values[offsets[at] : offsets[at + len(part)]] = self.values[spans(self.offsets[part], self.sizes[part])]
        return Shingles(values, offsets)


def shingles(texts: Iterable[str]) -> Shingles:
    """Holds the hashes, never the texts: some 4 bytes a word."""
    found = array("I")  # grows in place: chunks that are joined in the end would be held twice
    sizes: list[Ints] = []
    for chunk in _chunks(texts):
        values, counts = _hash_chunk(chunk)
        found.frombytes(values.tobytes())
        sizes.append(counts)
    offsets = np.concatenate([np.zeros(1, np.int64), *sizes]).cumsum()
    return Shingles(np.frombuffer(found, np.uint32), offsets)


def mix(x: Words) -> Words:
    """The finalizer of SplitMix64 (Steele et al. 2014): every input bit moves every output bit."""
    x = x ^ (x >> np.uint64(30))
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def spans(starts: Ints, sizes: Ints) -> Ints:
    """start, start + 1, ... start + size - 1, for one span after another."""
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - sizes), sizes)


def is_in(values: Hashes, known: Hashes) -> NDArray[np.bool_]:
    """Membership in an ascending array."""
    if not len(known):
        return np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return known[at] == values


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in texts:
        folded = text.casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
        chunk.append(folded)
        size += len(folded) + 1
        if size >= CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _hash_chunk(texts: list[str]) -> tuple[Hashes, Ints]:
    """Shingle hashes of each text, ascending without repeats, and how many each has."""
    n = len(texts)
    points = _points("\n".join(texts))
    begins = np.zeros(n, np.int64)  # where each text starts
    np.cumsum(np.fromiter((len(t) + 1 for t in texts[:-1]), np.int64, n - 1), out=begins[1:])
    words, starts = _words(points)
    first = np.searchsorted(starts, begins)  # index of each text's first word
    counts = np.diff(np.append(first, len(starts)))
    hashes, row = _windows(words, counts, first)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        hashes = np.concatenate([hashes, [_whole(texts[i]) for i in empty]]).astype(np.uint32)
        row = np.concatenate([row, empty])
    key = (row.astype(np.uint64) << np.uint64(32)) | hashes
    key.sort()
    key = key[np.concatenate([[True], key[1:] != key[:-1]])]
    return key.astype(np.uint32), np.bincount((key >> np.uint64(32)).astype(np.int64), minlength=n)


def _points(text: str) -> NDArray[np.unsignedinteger]:
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _words(points: NDArray[np.unsignedinteger]) -> tuple[Words, Ints]:
    """The hash of every word and where it starts. A word's hash is a polynomial of its characters' hashes."""
    if not len(points):
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    kind, weights = _looked_up(points)
    is_letter = kind == LETTER
    begins = kind == WHOLE
    begins[0] |= is_letter[0]
    begins[1:] |= is_letter[1:] > is_letter[:-1]
    starts = np.flatnonzero(begins)
    if not len(starts):
        return np.zeros(0, np.uint64), starts
    up, down = _powers(1 << (len(points) - 1).bit_length())
    weights *= up[: len(points)]
    sums = np.add.reduceat(weights, starts)
    return mix(sums * down[starts]), starts


def _windows(words: Words, counts: Ints, first: Ints) -> tuple[Words, Ints]:
    """The hash of every WORDS words in a row within a text, and the text; one for a text with fewer."""
    row = np.repeat(np.arange(len(counts)), counts)
    here = np.arange(len(words)) - first[row]
    left = counts[row] - here  # words from here to the end of the text
    keep = (here == 0) | (left >= WORDS)
    padded = np.concatenate([words, np.full(WORDS, ABSENT)])
    total = words * FACTORS[0]
    for k in range(1, WORDS):
        total += np.where(left > k, padded[k : k + len(words)], ABSENT) * FACTORS[k]
    return mix(total[keep]) >> np.uint64(32), row[keep]


def _whole(text: str) -> int:
    """A text without words is compared as it stands, but for white space."""
    digest = blake2b(" ".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big")


@cache
def _powers(length: int) -> tuple[Words, Words]:
    """BASE ** i and its inverse, modulo 2^64, for i below `length`."""
    up, down = np.full(length, BASE), np.full(length, INVERSE)
    up[0] = down[0] = 1
    return np.cumprod(up), np.cumprod(down)


@cache
def _blank() -> tuple[NDArray[np.uint8], Words]:
    return np.full(0x110000, UNKNOWN, np.uint8), np.zeros(0x110000, np.uint64)


def _looked_up(points: NDArray[np.unsignedinteger]) -> tuple[NDArray[np.uint8], Words]:
    """Class and hash of each character (0 for separators); the tables are filled in as characters are met."""
    classes, weights = _blank()
    kind = classes.take(points)
    if (kind == UNKNOWN).any():
        fresh = np.unique(points[kind == UNKNOWN]).astype(np.int64)
        kinds = np.array([_class(int(p)) for p in fresh], np.uint8)
        weights[fresh] = np.where(kinds == SEPARATOR, 0, mix(fresh.astype(np.uint64) + np.uint64(1)))
        classes[fresh] = kinds
        kind = classes.take(points)
    return kind, weights.take(points)


def _class(point: int) -> int:
    if unicodedata.category(chr(point))[0] not in "LNM":
        return SEPARATOR
    return WHOLE if any(low <= point <= high for low, high in SPACELESS) else LETTER


def phrases_of(text: str, wanted: Hashes) -> list[tuple[str, list[int]]]:
    """The runs of words of a text whose shingles are all wanted (ascending hashes), with those shingles."""
    folded = next(_chunks([text]))[0]
    words, starts = _words(_points(folded))
    if not len(words):
        return []
    hashes, _ = _windows(words, np.array([len(words)]), np.zeros(1, np.int64))
    hit = is_in(hashes.astype(np.uint32), wanted)
    found: list[tuple[str, list[int]]] = []
    at = 0
    while at < len(hit):
        stop = at
        while stop < len(hit) and hit[stop]:
            stop += 1
        if stop > at:
            last = stop + WORDS - 1  # the word after the run
            end = int(starts[last]) if last < len(starts) else len(folded)
            found.append((" ".join(folded[starts[at] : end].split()), hashes[at:stop].tolist()))
        at = stop + 1
    return found
