"""The people of a review room, and the personal links that tell them apart.

A link carries 256 random bits; only their SHA-256 is kept, so that neither the ledger nor a backup of it
lets anybody in.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.core.errors import InputError

Role = Literal["owner", "annotator"]
MAX_NAME = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    name: str
    role: Role  # the owner also hands out links, sees who said what, and adjudicates


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def check_name(name: str) -> str:
    """Raises InputError for a name that could not be told from another in a list."""
    if not name or len(name) > MAX_NAME or not name.isprintable() or name != " ".join(name.split()):
        raise InputError(
            f"a name has 1 to {MAX_NAME} visible characters, without spaces at its ends",
            where="name",
            fix="choose a short name such as ann",
        )
    return name


class People:
    """By name and by the hash of the token. A new link for a name ends the one before."""

    def __init__(self, facts: Iterable[Mapping[str, Any]] = ()) -> None:
        self._by_name: dict[str, tuple[Person, str]] = {}
        self._by_hash: dict[str, Person] = {}
        for fact in facts:
            self.learn(fact)

    def learn(self, fact: Mapping[str, Any]) -> None:
        """A kept fact: {name, role, token_sha256}; an empty hash means that nobody comes in by a link."""
        person = Person(name=fact["name"], role=fact["role"])
        _, before = self._by_name.get(person.name, (person, ""))
        self._by_hash.pop(before, None)
        self._by_name[person.name] = (person, fact["token_sha256"])
        if fact["token_sha256"]:
            self._by_hash[fact["token_sha256"]] = person

    def invite(self, name: str, role: Role) -> tuple[dict[str, Any], str]:
        """The fact to keep and `learn`, and the token, which is nowhere else."""
        token = secrets.token_urlsafe(32)
        return {"name": check_name(name), "role": role, "token_sha256": token_hash(token)}, token

    def find(self, token: str) -> Person | None:
        """Looked up by hash: how long it takes says nothing about a token."""
        return self._by_hash.get(token_hash(token))

    def named(self, name: str) -> Person | None:
        found = self._by_name.get(name)
        return found[0] if found else None

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(sorted((p for p, _ in self._by_name.values()), key=lambda p: p.name))
