import logging
import sys
import threading
from pathlib import Path

import pytest

from gpu_service.telemetry.gpu import Gpu, GpuSampler, find_reader, read_nvidia_smi, read_nvml

# The form that NVIDIA's own library has, as far as it is asked.
_PYNVML = """
from types import SimpleNamespace
class NVMLError(Exception): pass
class NVMLError_NotSupported(NVMLError): pass
class NVMLError_LibraryNotFound(NVMLError): pass
present, open_count = True, 0
def nvmlInit():
    global open_count
    if not present:
        raise NVMLError_LibraryNotFound("NVML Shared Library Not Found")
    open_count += 1
def nvmlShutdown():
    global open_count
    open_count -= 1
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetUUID(handle): return f"GPU-{handle}"
def nvmlDeviceGetMemoryInfo(handle): return SimpleNamespace(used=100, total=1000)
def nvmlDeviceGetUtilizationRates(handle):
    if handle == 1:
        raise NVMLError_NotSupported("Not Supported")
    return SimpleNamespace(gpu=37)
"""


def _program(folder: Path, script: str) -> str:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    return str(program)


def test_the_command_is_asked_where_the_library_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        'test "$1" = --query-gpu=index,uuid,utilization.gpu,memory.used,memory.total || exit 2\n'
        'test "$2" = --format=csv,noheader,nounits || exit 2\n'
        'echo "0, GPU-aa, 25, 512, 143771"\n'
        'echo "1, GPU-bb, [N/A], [Not Supported], 143771"'
    )
    _program(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    reader = find_reader()
    assert reader is not None
    total = 143771 * 1024 * 1024
    assert reader() == [
        Gpu("0", "GPU-aa", 0.25, 512 * 1024 * 1024, total),
        Gpu("1", "GPU-bb", None, None, total),
    ]


def test_the_library_is_asked_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pynvml.py").write_text(_PYNVML, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    try:
        assert find_reader() is read_nvml
        assert read_nvml() == [Gpu("0", "GPU-0", 0.37, 100, 1000), Gpu("1", "GPU-1", None, 100, 1000)]
        assert sys.modules["pynvml"].open_count == 0, "what was opened is closed"
        monkeypatch.setattr(sys.modules["pynvml"], "present", False)
        assert read_nvml() == [], "the library without a driver: a machine without a GPU"
    finally:
        sys.modules.pop("pynvml", None)


def test_a_machine_without_a_driver_has_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_reader() is None
    assert GpuSampler(find_reader()).sample() == ()


def test_a_driver_that_fails_is_logged_once_and_tells_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpu_service.telemetry.gpu._FRESH_SECONDS", 0.0)
    program = _program(tmp_path, "echo broken >&2; exit 9")
    sampler = GpuSampler(lambda: read_nvidia_smi(program))
    with caplog.at_level(logging.WARNING):
        assert [sampler.sample() for _ in range(3)] == [(), (), ()]
    (record,) = caplog.records
    assert "exit status 9" in record.message


def test_a_command_that_hangs_is_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    program = _program(tmp_path, "exec sleep 60")
    sampler = GpuSampler(lambda: read_nvidia_smi(program, timeout_s=0.2), timeout_s=30)
    assert sampler.sample() == ()
    assert "timed out" in caplog.text


def test_a_driver_that_hangs_is_not_waited_for_and_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_service.telemetry.gpu._FRESH_SECONDS", 0.0)
    answers, asked = threading.Event(), []

    def reader() -> list[Gpu]:
        asked.append(1)
        answers.wait(60)
        return [Gpu("0", "GPU-0", 0.5, 1, 2)]

    sampler = GpuSampler(reader, timeout_s=0.05)
    assert sampler.sample() == ()
    assert sampler.sample() == ()
    assert asked == [1]
    answers.set()
    sampler._timeout_s = 60
    assert [gpu.uuid for gpu in sampler.sample()] == ["GPU-0"]


def test_a_fresh_answer_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_service.telemetry.gpu._FRESH_SECONDS", 3600.0)
    asked: list[int] = []

    def reader() -> list[Gpu]:
        asked.append(1)
        return []

    sampler = GpuSampler(reader)
    for _ in range(5):
        sampler.sample()
    assert asked == [1]
