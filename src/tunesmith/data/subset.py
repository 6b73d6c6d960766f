"""`limit`: a seeded subset of whole rows in which every smaller subset is contained."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence


def subset(ids: Sequence[str], splits: Sequence[int], classes: Sequence[int], limit: int, seed: int) -> set[int]:
    """Positions of `limit` rows: those of a larger limit contain them, splits and classes keep their shares.

    Every row has one place in one order, whatever the limit, and a limit is a prefix of it. Within a
    class, rows follow their hash and are spread evenly over 0 to 1; so the classes of a split
    interleave; its rows are spread evenly again, so that the splits interleave.
    """
    order = {i: hashlib.sha256(f"{seed}\0{row_id}\0{i}".encode()).digest() for i, row_id in enumerate(ids)}
    by_split: dict[int, list[int]] = defaultdict(list)
    for i, split in enumerate(splits):
        by_split[split].append(i)
    places: list[tuple[float, bytes, int]] = []
    for split, members in by_split.items():
        by_class: dict[int, list[int]] = defaultdict(list)
        for i in members:
            by_class[classes[i]].append(i)
        spread = [
            place for label, rows in by_class.items() for place in _spread(rows, order, f"{seed}\0{split}\0{label}")
        ]
        ranked = [i for _, _, i in sorted(spread)]
        places += [((rank + 0.5) / len(ranked), order[i], i) for rank, i in enumerate(ranked)]
    return {i for _, _, i in sorted(places)[:limit]}


def _spread(rows: list[int], order: dict[int, bytes], name: str) -> list[tuple[float, bytes, int]]:
    """Places from 0 to 1 at equal distances, the first at a hashed offset, or all small classes would come at once."""
    offset = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    ranked = sorted(rows, key=lambda i: order[i])
    return [((rank + offset) / len(rows), order[i], i) for rank, i in enumerate(ranked)]
