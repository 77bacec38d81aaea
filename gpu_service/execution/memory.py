"""What this process takes of the memory, and giving it back."""

import ctypes
import gc
from pathlib import Path

_ROLLUP = Path("/proc/self/smaps_rollup")


def memory_in_use() -> int:
    """Bytes of the proportional set size; 0 where the system does not tell.

    The resident set would count weights that two sessions map twice.
    """
    try:
        lines = _ROLLUP.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def give_back() -> None:
    """Return freed memory to the system: glibc keeps it for this process otherwise."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
