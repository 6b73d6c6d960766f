"""Candidates by MinHash and locality-sensitive hashing: other people's way, kept for comparison.

128 minima of a set under 128 random orders (Broder 1997), cut into bands; rows with an equal band are
candidates with probability 1 - (1 - t^r)^b at similarity t. Some pairs are missed; the exact join misses none
and is faster on texts, so this is the option and not the default. Depends on the shingles alone.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np

from tunesmith.data.near.join import Keys
from tunesmith.data.near.shingles import Ints, Shingles, mix

PERMUTATIONS = 128
SLICE = 1 << 18  # shingles at a time


def minhash_keys(sets: Shingles, threshold: float, place: Ints) -> Keys:
    """A key for each band of each row, for Join."""
    bands, rows = bands_for(threshold)
    out = np.empty((len(sets), bands), np.uint64)
    for start, stop in _slices(sets):
        signature = minima(sets, start, stop)[: bands * rows].reshape(bands, rows, -1)
        key = np.zeros((bands, stop - start), np.uint64)
        for r in range(rows):
            key = mix(key ^ signature[:, r].astype(np.uint64) + np.uint64(r + 1))
        key ^= mix(np.arange(1, bands + 1, dtype=np.uint64))[:, None]
        out[start:stop] = (key & np.uint64(0xFFFFFFFF00000000)).T
    return (out | place.astype(np.uint64)[:, None]).ravel()


def minima(sets: Shingles, start: int, stop: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint32]]:
    """PERMUTATIONS x rows: the least hash of each set under each order x -> (a x + b) >> 32, a odd."""
    offsets = sets.offsets[start:stop] - sets.offsets[start]
    values = sets.values[sets.offsets[start] : sets.offsets[stop]].astype(np.uint64)
    seeds = mix(np.arange(1, 2 * PERMUTATIONS + 1, dtype=np.uint64))
    out = np.empty((PERMUTATIONS, stop - start), np.uint32)
    for i in range(PERMUTATIONS):
        hashed = (values * (seeds[2 * i] | np.uint64(1)) + seeds[2 * i + 1]) >> np.uint64(32)
        out[i] = np.minimum.reduceat(hashed, offsets)
    return out


def _slices(sets: Shingles) -> list[tuple[int, int]]:
    bounds = np.searchsorted(sets.offsets, np.arange(0, int(sets.offsets[-1]), SLICE))
    cuts = np.unique(np.concatenate([[0], bounds, [len(sets)]])).tolist()
    return list(itertools.pairwise(cuts))


@cache
def bands_for(threshold: float) -> tuple[int, int]:
    """Bands and rows a band with the least sum of the areas of false positives and false negatives, as datasketch
    weighs them (half and half)."""
    best = (1.0, 1, 1)
    below, above = np.linspace(0, threshold, 101)[:-1], np.linspace(threshold, 1, 101)
    for rows in range(1, PERMUTATIONS + 1):
        for bands in range(1, PERMUTATIONS // rows + 1):
            hit_below = 1 - (1 - below**rows) ** bands
            missed = (1 - above**rows) ** bands
            cost = 0.5 * float(hit_below.mean() * threshold) + 0.5 * float(missed.mean() * (1 - threshold))
            best = min(best, (cost, bands, rows))
    return best[1], best[2]
