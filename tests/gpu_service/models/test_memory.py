"""The memory budget and where its limit comes from."""

import os
from pathlib import Path

import pytest

from gpu_service.models.memory import memory_limit

GIB = 1024**3


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": f"{GIB}"}, GIB),
        ("0::/a/b", {"a/b/memory.max": f"{GIB // 2}", "a/memory.max": f"{GIB}"}, GIB // 2),
        ("0::/", {"memory.max": f"{GIB}"}, GIB),
        ("5:memory:/x\n2:cpu:/", {"memory/x/memory.limit_in_bytes": f"{GIB}"}, GIB),
        ("5:memory:/x", {"memory/memory.limit_in_bytes": f"{GIB}"}, GIB),
        ("5:memory:/x", {"memory/x/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("2:cpu:/", {"memory.max": f"{GIB}"}, None),
        ("", {}, None),
    ],
)
def test_80_percent_of_the_smallest_limit(
    tmp_path: Path, groups: str, files: dict[str, str], limit: int | None
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory_limit(0, tmp_path / "proc", tmp_path / "cgroup") == int(0.8 * min(machine, limit or machine))


def test_a_setting_counts_before_all() -> None:
    assert memory_limit(5) == 5
