"""Sections of Debian's packages with their descriptions, from apt's own lists where they are on this machine.

`apt-get -o Dir::State::lists=DIR -o Acquire::Languages=en update` puts them into DIR (DIR/partial must exist);
TUNESMITH_DEBIAN_LISTS names DIR, otherwise apt's own folder is looked into.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

HELPER = Path("/usr/lib/apt/apt-helper")


def packages() -> list[tuple[str, str, str]]:
    """(description, section, source package) of every package of main that has a description. Skips without them."""
    folder = Path(os.environ.get("TUNESMITH_DEBIAN_LISTS", "/var/lib/apt/lists"))
    lists = sorted(p for p in folder.glob("*_main_binary-*_Packages*") if "security" not in p.name)
    texts = sorted(p for p in folder.glob("*_main_i18n_Translation-en*") if "security" not in p.name)
    if not HELPER.exists() or not lists or not texts:
        pytest.skip("apt's package lists with English descriptions are not on this machine (TUNESMITH_DEBIAN_LISTS)")
    told = {(s["Package"], s["Description-md5"]): s["Description-en"] for p in texts for s in _stanzas(p)}
    found = {}
    for path in lists:
        for s in _stanzas(path):
            text = told.get((s["Package"], s.get("Description-md5", "")))
            if text and "Section" in s:
                source = s.get("Source", s["Package"]).split(" ")[0]
                found[s["Package"]] = (text, s["Section"].rpartition("/")[2], source)
    return [found[name] for name in sorted(found)]


def _stanzas(path: Path) -> Iterator[dict[str, str]]:
    out = subprocess.run([str(HELPER), "cat-file", str(path)], capture_output=True, check=True).stdout
    for block in out.decode("utf-8", "replace").split("\n\n"):
        stanza: dict[str, str] = {}
        key = ""
        for line in block.split("\n"):
            if line[:1] in (" ", "\t"):
                stanza[key] += f"\n{line[1:]}"
            elif ":" in line:
                key, _, value = line.partition(":")
                stanza[key] = value.strip()
        if stanza:
            yield stanza
