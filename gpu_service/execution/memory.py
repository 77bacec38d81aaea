"""What this process takes of the memory, and giving it back."""

import ctypes

from gpu_service.telemetry.memory import pss_bytes


def memory_in_use() -> int:
    """Bytes of the proportional set size; 0 where the system does not tell."""
    return pss_bytes() or 0


def give_back() -> None:
    """Return freed memory to the system: glibc keeps it for this process otherwise.

    A session is in no cycle of references, so nothing has to be collected, which would hold every request up.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
