"""The control groups that bound this process, v2 and v1.

Sources: Linux kernel, "Control Group v2" and "Control Groups version 1"; proc_pid_cgroup(5) for `/proc/self/cgroup`.
"""

from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def own_groups(controller: str, proc: Path = PROC, cgroups: Path = CGROUPS) -> list[Path]:
    """Folders that may hold the bounds of a controller (`cpu`, `memory`), from this process's own group to the root.

    Empty where there are no control groups. A v1 hierarchy is mounted under its own name, or that of one controller.
    """
    folders: list[Path] = []
    for line in read(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots = [cgroups]
        elif controller in controllers.split(","):
            roots = list(dict.fromkeys((cgroups / controllers, cgroups / controller)))
        else:
            continue
        own = Path(path.lstrip("/"))
        folders += [root / part for root in roots for part in (own, *own.parents)]
    return folders


def read(path: Path) -> str:
    """The text of one of their files without the line's end; empty if it is not there or may not be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
