"""What is renamed into the store is on the disk first, and the store's folder before the fact that names it.

A SIGKILL keeps the page cache and so proves nothing about this; the order of system calls does.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.test_ledger_disk import ROOT, SCRIPT, needs_strace

CALLS = "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2"
FD_CALL = re.compile(r"^\d+\s+(write|pwrite64|fsync|fdatasync)\(\d+<([^>]*)>.*= (\d+)")
RENAME = re.compile(r'^\d+\s+rename\w*\((?:AT_FDCWD[^,]*, )?"([^"]*)", (?:AT_FDCWD[^,]*, )?"([^"]*)".*= 0')


@dataclass
class Order:
    """What is not yet safe on the disk, while a log of system calls is read."""

    unsynced_files: set[str] = field(default_factory=set)
    unsynced_folders: dict[str, str] = field(default_factory=dict)  # folder → the object renamed into it
    synced: set[str] = field(default_factory=set)
    renamed: int = 0
    commits: int = 0
    violations: list[str] = field(default_factory=list)

    def read(self, line: str) -> None:
        if m := FD_CALL.match(line):
            call, path, _ = m.groups()
            if call in ("write", "pwrite64"):
                self.unsynced_files.add(path)
                self.synced.discard(path)
            else:
                self.unsynced_files.discard(path)
                self.unsynced_folders.pop(path, None)
                self.synced.add(path)
                if path.endswith("ledger.db-wal"):
                    self.commits += 1
                    self.violations += [f"committed before {f} was synced" for f in self.unsynced_folders]
        elif (m := RENAME.match(line)) and re.search(r"/objects/[0-9a-f]{2}/[0-9a-f]{64}$", m[2]):
            self.renamed += 1
            if m[1] in self.unsynced_files or m[1] not in self.synced:
                self.violations.append(f"{m[1]} was renamed before it was synced")
            self.unsynced_folders[str(Path(m[2]).parent)] = m[2]


def orders(log: str) -> Order:
    order = Order()
    for line in log.splitlines():
        order.read(line)
    return order


@needs_strace
def test_write_fsync_rename_fsync_folder_commit(tmp_path: Path) -> None:
    state = tmp_path / ".tunesmith"
    log = tmp_path / "strace.log"
    command = ["strace", "-f", "-y", "-s", "200", "-o", str(log), "-e", f"trace={CALLS}", sys.executable, "-c", SCRIPT]
    subprocess.run([*command, str(state)], cwd=ROOT, capture_output=True, check=True)
    order = orders(log.read_text(encoding="utf-8", errors="replace"))
    assert order.violations == []
    assert order.renamed == 5  # the source (copied), two rows and a report (moved), the metric log (copied)
    assert order.commits >= 4
    assert not order.unsynced_folders
    assert shutil.which("strace")


def test_the_check_itself_sees_each_violation() -> None:
    object_ = "/s/objects/ab/" + "ab" * 32
    write = "1 write(3</s/tmp/x>, 4096) = 4096\n"
    sync = "1 fsync(3</s/tmp/x>) = 0\n"
    rename = f'1 rename("/s/tmp/x", "{object_}") = 0\n'
    folder = "1 fsync(4</s/objects/ab>) = 0\n"
    commit = "1 fdatasync(5</s/ledger.db-wal>) = 0\n"
    assert orders(write + sync + rename + folder + commit).violations == []
    assert "renamed before" in orders(write + rename + folder + commit).violations[0]
    assert "renamed before" in orders(sync + write + rename + folder + commit).violations[0]
    assert "committed before" in orders(write + sync + rename + commit + folder).violations[0]
