"""What this machine says about itself: memory that is left, memory that was used, energy drawn. Loads no torch."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path

MIB = 2**20
RAPL = Path("/sys/class/powercap")
OTHER_HEAPS = ("tcmalloc", "mimalloc", "jemalloc")
NVIDIA = Path("/proc/driver/nvidia/gpus")  # as NVIDIA's driver lists what it drives


def free_bytes() -> int:
    """Memory that may still be taken: what the system calls available, and no more than a container's limit allows."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            free = min(free, int(limit) - int((group / "memory.current").read_text(encoding="ascii")))
    except OSError:
        pass  # not Linux, or no container: the first figure stands
    return free


def heap_is_glibc() -> bool:
    """Unless another allocator was put before it, which this process and those it starts then have."""
    put_before = os.environ.get("LD_PRELOAD", "")
    return platform.libc_ver()[0] == "glibc" and not any(name in put_before for name in OTHER_HEAPS)


def on_gpu(device: str) -> bool:
    """Whether exec.device will be a GPU: said, or `auto` where a driver has one."""
    return device.startswith("cuda") or (device == "auto" and NVIDIA.is_dir() and any(NVIDIA.iterdir()))


def resident_bytes() -> int:
    """Of this process now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def forget_peak() -> None:
    """Start a new high-water mark, so that a stage's peak is its own and not that of what ran before it in this
    process. Linux only; elsewhere the mark stays."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak_mib() -> int:
    """The most memory this process held since `forget_peak`, or since it began where that is not known."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024)
    except OSError:
        pass
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def energy_joules() -> float | None:
    """A counter of what the processors have drawn, where the system lets us read it (RAPL); None elsewhere."""
    found = [p / "energy_uj" for p in sorted(RAPL.glob("intel-rapl:[0-9]")) if (p / "energy_uj").is_file()]
    try:
        return sum(int(p.read_text(encoding="ascii")) for p in found) / 1e6 if found else None
    except (OSError, ValueError):
        return None
