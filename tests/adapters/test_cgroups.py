"""Where the bounds of this process stand."""

from pathlib import Path

import pytest

from shared.adapters.cgroups import own_groups, read


@pytest.mark.parametrize(
    ("membership", "folders"),
    [
        ("0::/\n", [""]),
        ("0::/pod/app\n", ["pod/app", "pod", ""]),
        ("4:cpu:/app\n", ["cpu/app", "cpu"]),
        ("4:cpu,cpuacct:/\n", ["cpu,cpuacct", "cpu"]),
        ("3:memory:/app\n1:name=systemd:/app\n", []),
        ("0::/with:colon\n", ["with:colon", ""]),
        ("", []),
    ],
)
def test_the_groups_of_a_controller(tmp_path: Path, membership: str, folders: list[str]) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(membership)
    assert own_groups("cpu", tmp_path / "proc", tmp_path / "cgroup") == [tmp_path / "cgroup" / name for name in folders]


def test_no_control_groups(tmp_path: Path) -> None:
    assert own_groups("cpu", tmp_path, tmp_path) == []


def test_what_cannot_be_read_is_empty(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert read(tmp_path / "cpu.max") == "max 100000"
    assert read(tmp_path / "memory.max") == read(tmp_path) == ""
