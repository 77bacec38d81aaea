"""How much memory models may take, and how much they have.

Sources: Linux kernel, "Control Group v2" (memory.max) and "Memory Resource Controller" (memory.limit_in_bytes).
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from shared.adapters.cgroups import CGROUPS, PROC, own_groups, read

if TYPE_CHECKING:
    from gpu_service.models.served_model import ServedModel

# The rest is for the interpreter, the requests that wait, and what sessions need while they run.
_SHARE = 0.8


class MemoryBudget:
    """What the loaded models take of `limit` bytes; belongs to the event loop."""

    __slots__ = ("_costs", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._costs: dict[ServedModel, int] = {}

    @property
    def free(self) -> int:
        """Bytes that are left; negative if more is taken than planned."""
        return self.limit - self.used

    def cost(self, served: "ServedModel") -> int:
        """What a model takes."""
        return self._costs[served]

    def take(self, served: "ServedModel", nbytes: int) -> None:
        """A model is in memory and has this many bytes."""
        self._costs[served] = nbytes
        self.used += nbytes

    def give_back(self, served: "ServedModel") -> None:
        """It is not any more."""
        self.used -= self._costs.pop(served)


def memory_limit(setting: int, proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """The budget in bytes: `setting`, or if it is 0, 80 % of what the cgroups and the machine allow this process."""
    if setting:
        return setting
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = (_limit(folder) for folder in own_groups("memory", proc, cgroups))
    return int(_SHARE * min([machine, *(limit for limit in limits if limit is not None)]))


def _limit(folder: Path) -> int | None:
    """Bytes that a cgroup allows; None if it sets no limit."""
    text = read(folder / "memory.max") or read(folder / "memory.limit_in_bytes")
    return int(text) if text.isdecimal() else None
