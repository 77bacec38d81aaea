"""What this process takes of the memory, and giving it back."""

import ctypes
import gc

from gpu_service.telemetry.memory import pss_bytes


def memory_in_use() -> int:
    """Bytes of the proportional set size; 0 where the system does not tell."""
    return pss_bytes() or 0


def give_back() -> None:
    """Return freed memory to the system: glibc keeps it for this process otherwise."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
