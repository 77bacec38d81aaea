"""How many CPUs this process may really use.

ONNX Runtime sizes its thread pools by the host. In a container that is wrong twice: the CPU set may be smaller, and a
cgroup quota makes threads beyond it wait for the next period, which shows as latency.
Sources: Linux kernel, "Control Group v2" (cpu.max) and "CFS Bandwidth Control" (cpu.cfs_quota_us, cpu.cfs_period_us).
"""

import os
from pathlib import Path


def available_cpus(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs in the affinity mask, bounded by the quota of this process's cgroup and of all above it; at least 1.

    A quota is rounded down: 1.5 CPUs are one busy thread, since a second one would be throttled.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _own_groups(proc, cgroups) if (quota := _quota(folder)) is not None]
    return max(1, min([affinity, *(int(quota) for quota in quotas)]))


def _own_groups(proc: Path, cgroups: Path) -> list[Path]:
    """Folders of the cgroups that bound this process, v2 and v1, from its own up to the root."""
    folders: list[Path] = []
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots = [cgroups]
        elif "cpu" in controllers.split(","):
            roots = [cgroups / controllers, cgroups / "cpu"]
        else:
            continue
        own = Path(path.lstrip("/"))
        folders += [root / part for root in roots for part in (own, *own.parents)]
    return folders


def _quota(folder: Path) -> float | None:
    """CPUs that a cgroup allows; None if it sets no limit."""
    limit, _, period = _read(folder / "cpu.max").partition(" ")
    if not limit:
        limit, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    try:
        return int(limit) / int(period) if int(limit) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max", or no such controller here
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
