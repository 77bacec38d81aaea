"""Utilisation and memory of the GPUs, as NVIDIA's driver tells them.

Asked through `pynvml` (the package `nvidia-ml-py`) where it is installed, else through `nvidia-smi`. Where neither is,
there is no GPU to tell of. A driver that hangs must not take `/metrics` with it: it is asked in a thread of its own.
"""

import csv
import logging
import shutil
import subprocess
import threading
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from time import monotonic
from typing import Any, NamedTuple

_log = logging.getLogger(__name__)
_FRESH_SECONDS = 1.0
_MAX_GPUS = 64
_MIB = 1024 * 1024
_QUERY = "index,uuid,utilization.gpu,memory.used,memory.total"
_PERCENT = 100


class Gpu(NamedTuple):
    """One device. None where the driver does not say, as with the utilisation of a part of a device (MIG)."""

    number: str
    uuid: str
    utilization: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None


Reader = Callable[[], list[Gpu]]


class GpuSampler:
    """Tells of the GPUs at most once a second, and of an earlier moment while the driver does not answer.

    `sample` may be called in any thread but the event loop's, where it would wait.
    """

    def __init__(self, reader: Reader | None, *, timeout_s: float = 2.0) -> None:
        self._reader = reader
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._asking: threading.Thread | None = None
        self._asked_at = float("-inf")
        self._last: tuple[Gpu, ...] = ()
        self._failed = False

    def sample(self) -> tuple[Gpu, ...]:
        """The devices; empty where there are none, where they cannot be asked and until they first answer."""
        if self._reader is None:
            return ()
        with self._lock:
            if self._asking is None or not self._asking.is_alive():
                if monotonic() - self._asked_at < _FRESH_SECONDS:
                    return self._last
                self._asked_at = monotonic()
                self._asking = threading.Thread(target=self._ask, args=(self._reader,), name="gpu-sample", daemon=True)
                self._asking.start()
            asking = self._asking
        asking.join(self._timeout_s)
        return self._last

    def _ask(self, reader: Reader) -> None:
        try:
            self._last = tuple(reader()[:_MAX_GPUS])
            self._failed = False
        except Exception as error:  # noqa: BLE001 - a driver's error must not take the other metrics away
            self._last = ()
            if not self._failed:
                _log.warning("the GPUs cannot be asked: %s", error)
            self._failed = True


def find_reader() -> Reader | None:
    """How GPUs are asked on this machine; None if nothing can."""
    if find_spec("pynvml") is not None:
        return read_nvml
    program = shutil.which("nvidia-smi")
    return None if program is None else lambda: read_nvidia_smi(program)


def read_nvml() -> list[Gpu]:
    """The devices through NVIDIA's library; none without a driver, pynvml.NVMLError if that fails."""
    nvml: Any = import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError_LibraryNotFound:
        return []
    try:
        return [_device(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    finally:
        nvml.nvmlShutdown()


def _device(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    uuid = nvml.nvmlDeviceGetUUID(handle)
    memory = _told(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    rates = _told(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    return Gpu(
        number=str(index),
        uuid=uuid.decode() if isinstance(uuid, bytes) else str(uuid),
        utilization=None if rates is None else rates.gpu / _PERCENT,
        memory_used_bytes=None if memory is None else int(memory.used),
        memory_total_bytes=None if memory is None else int(memory.total),
    )


def _told(nvml: Any, ask: Callable[[Any], Any], handle: Any) -> Any:
    try:
        return ask(handle)
    except nvml.NVMLError_NotSupported:
        return None


def read_nvidia_smi(program: str, timeout_s: float = 5.0) -> list[Gpu]:
    """The devices through the driver's command; OSError or subprocess.SubprocessError if it fails."""
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    text = subprocess.run(command, capture_output=True, check=True, text=True, timeout=timeout_s).stdout  # noqa: S603
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row]
    return [
        Gpu(number, uuid, _number(busy, 1 / _PERCENT), _bytes(used), _bytes(total))
        for number, uuid, busy, used, total in rows
    ]


def _number(text: str, unit: float) -> float | None:
    """The command writes "[N/A]" or "[Not Supported]" for what it does not know."""
    return None if text.startswith("[") else float(text) * unit


def _bytes(mib: str) -> int | None:
    value = _number(mib, _MIB)
    return None if value is None else int(value)
