"""How many CPUs this process may really use.

ONNX Runtime sizes its thread pools by the host. In a container that is wrong twice: the CPU set may be smaller, and a
cgroup quota makes threads beyond it wait for the next period, which shows as latency.
Sources: Linux kernel, "Control Group v2" (cpu.max) and "CFS Bandwidth Control" (cpu.cfs_quota_us, cpu.cfs_period_us).
"""

import os
from pathlib import Path

from shared.adapters.cgroups import CGROUPS, PROC, own_groups, read


def available_cpus(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """CPUs in the affinity mask, bounded by the quota of this process's cgroup and of all above it; at least 1.

    A quota is rounded down: 1.5 CPUs are one busy thread, since a second one would be throttled.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in own_groups("cpu", proc, cgroups) if (quota := _quota(folder)) is not None]
    return max(1, min([affinity, *(int(quota) for quota in quotas)]))


def _quota(folder: Path) -> float | None:
    """CPUs that a cgroup allows; None if it sets no limit."""
    limit, _, period = read(folder / "cpu.max").partition(" ")
    if not limit:
        limit, period = read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us")
    try:
        return int(limit) / int(period) if int(limit) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max", or no such controller here
        return None
