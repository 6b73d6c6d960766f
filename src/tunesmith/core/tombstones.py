"""What stays of a row that was forgotten: a salted hash of its id, by which it is known when it comes back.

A tombstone is "salt:hash". The salt is random and kept in the ledger, so that the hash says nothing to
somebody who holds only the tombstone and guesses at texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable


def tombstone(example_id: str, salt: str) -> str:
    said = f"{salt}\n{example_id}".encode()
    return f"{salt}:{hashlib.sha256(said).hexdigest()}"


def is_forgotten(example_id: str, tombstones: Iterable[str]) -> bool:
    """One row against all tombstones. For many rows see `forgotten_in`."""
    return forgotten_in(tombstones)(example_id)


def forgotten_in(tombstones: Iterable[str]) -> Callable[[str], bool]:
    """A function that tells whether an example id is among them: one hash for each salt, whatever their number."""
    known = frozenset(tombstones)
    salts = tuple(sorted({t.partition(":")[0] for t in known}))
    return lambda example_id: any(tombstone(example_id, salt) in known for salt in salts)
