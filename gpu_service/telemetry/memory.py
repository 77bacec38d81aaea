"""What this process takes of the memory."""

from pathlib import Path

# Source: Linux kernel, "The /proc Filesystem".
_ROLLUP = Path("/proc/self/smaps_rollup")


def pss_bytes() -> int | None:
    """The proportional set size of this process; None where the system does not tell it (not Linux, or forbidden).

    The resident set would count weights that two sessions map twice.
    """
    try:
        lines = _ROLLUP.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), None)
