"""Sessions: providers, threads, external data that stays inside the package."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from shared.adapters.onnx.cpus import available_cpus
from shared.adapters.onnx.session import ProviderNotLoaded, create_session
from shared.domain.errors import InvalidPackage
from tests.models import add_model, model, value

WEIGHTS = np.arange(1000, dtype=np.float32)


def external_tensor(location: str, name: str = "w") -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1000], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("offset", "0"), ("length", str(WEIGHTS.nbytes))):
        tensor.external_data.add(key=key, value=text)
    return tensor


def with_initializer(location: str) -> bytes:
    return model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [value("x", TensorProto.FLOAT, [1000])],
        [value("y", TensorProto.FLOAT, [1000])],
        [external_tensor(location)],
    )


def with_constant_in_a_branch(location: str) -> bytes:
    """The tensor hides in an attribute of a node in a subgraph."""
    branches = [
        helper.make_graph(
            [
                helper.make_node("Constant", [], [f"w{name}"], value=external_tensor(location)),
                helper.make_node("Add", ["x", f"w{name}"], [f"y{name}"]),
            ],
            name,
            [],
            [value(f"y{name}", TensorProto.FLOAT, [1000])],
        )
        for name in ("then", "else")
    ]
    return model(
        [helper.make_node("If", ["go"], ["y"], then_branch=branches[0], else_branch=branches[1])],
        [value("x", TensorProto.FLOAT, [1000]), value("go", TensorProto.BOOL, [])],
        [value("y", TensorProto.FLOAT, [1000])],
    )


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "weights.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "up").symlink_to(tmp_path)
    return folder


@pytest.mark.parametrize("build", [with_initializer, with_constant_in_a_branch])
def test_external_data_inside_the_package_is_loaded(package: Path, build) -> None:  # type: ignore[no-untyped-def]
    (package / "model.onnx").write_bytes(build("weights.bin"))
    session = create_session(package / "model.onnx", threads=1)
    feeds = {"x": np.zeros(1000, dtype=np.float32), "go": np.array(True)}
    names = {node.name for node in session.get_inputs()}
    (result,) = session.run(None, {name: array for name, array in feeds.items() if name in names})
    np.testing.assert_array_equal(result, WEIGHTS)


@pytest.mark.parametrize("build", [with_initializer, with_constant_in_a_branch])
@pytest.mark.parametrize(
    "location", ["../secret.bin", "{outside}/secret.bin", "link.bin", "up/secret.bin", "x/../../secret.bin"]
)
def test_external_data_outside_of_the_package_is_refused(package: Path, location: str, build) -> None:  # type: ignore[no-untyped-def]
    (package / "model.onnx").write_bytes(build(location.format(outside=package.parent)))
    with pytest.raises(InvalidPackage):
        create_session(package / "model.onnx", threads=1)


def test_provider_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(add_model())
    with pytest.raises(ProviderNotLoaded, match="NoSuchExecutionProvider"):
        create_session(
            tmp_path / "model.onnx", threads=1, providers=("NoSuchExecutionProvider", "CPUExecutionProvider")
        )


def test_threads_are_those_asked_for(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(add_model())
    options = create_session(tmp_path / "model.onnx", threads=3).get_session_options()
    assert options.intra_op_num_threads == 3
    assert options.inter_op_num_threads == 1


def cgroup(root: Path, membership: str, files: dict[str, str]) -> int:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for name, content in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return available_cpus(root / "proc", root / "cgroup")


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 8),
        (
            "0::/pod/app\n",
            {"cpu.max": "max 100000", "pod/cpu.max": "200000 100000", "pod/app/cpu.max": "max 100000"},
            2,
        ),
        (
            "4:cpu,cpuacct:/app\n",
            {"cpu,cpuacct/app/cpu.cfs_quota_us": "300000", "cpu,cpuacct/app/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("3:memory:/app\n", {"cpu.max": "100000 100000"}, 8),
        ("", {}, 8),
    ],
)
def test_cpus_follow_the_cgroup(tmp_path: Path, membership: str, files: dict[str, str], expected: int) -> None:
    assert cgroup(tmp_path, membership, files) == expected


def test_cpus_of_this_machine() -> None:
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)
