"""The log of a function, and the pipe through which one environment writes to it."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

MAX_FILE_BYTES = 32 * 1024 * 1024
TAIL_BYTES = 4096
_MAX_LINE_BYTES = 256 * 1024
_READ_BYTES = 64 * 1024

LogTap = Callable[[str, bytes], None]
"""Gets the log stream and whole lines; it must neither wait nor raise."""


class FunctionLog:
    """`<log_dir>/<LogicalId>.log`, shared by all environments of one function.

    Over 32 MiB the file becomes `<LogicalId>.log.1` and a new one begins.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size
        self._tap: LogTap | None = None

    def tap(self, tap: LogTap) -> None:
        """Have all that is written from now on given to `tap`, too."""
        self._tap = tap

    def write(self, data: bytes, stream: str) -> None:
        """Append whole lines of one log stream. After `close` nothing is kept.

        One system call, so lines of several environments do not mix.
        """
        if self._fd < 0:
            return
        if self._size > MAX_FILE_BYTES:
            os.close(self._fd)
            self._path.replace(self._path.with_suffix(".log.1"))
            self._fd = self._open()
            self._size = 0
        self._size += os.write(self._fd, data)
        if self._tap is not None:
            self._tap(stream, data)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


class LogPipe:
    """Carries stdout and stderr of one process to `sink`, in whole lines.

    What the process wrote before it sent its answer is in the pipe by the time the answer arrives: `drain` then gives
    all of it at once, so that an invocation's log is complete before its caller hears of it.
    """

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        self._partial = b""
        self._loop = asyncio.get_running_loop()
        self._read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_fd, False)
        self._loop.add_reader(self._read_fd, self.drain)

    def drain(self) -> None:
        """Read what is there, but not for ever: a process that floods its log must not hold up the loop."""
        for _ in range(16):
            try:
                data = os.read(self._read_fd, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._loop.remove_reader(self._read_fd)
                return
            self._feed(data)

    def flush(self) -> None:
        """Give the sink a last line that has no line end yet."""
        if self._partial:
            line, self._partial = self._partial, b""
            self._sink(line + b"\n")

    def close_write_end(self) -> None:
        """Leave the write end to the child alone, so that its exit ends the stream."""
        os.close(self.write_fd)

    def close(self) -> None:
        """Hand over what is left and close the read end."""
        self.drain()
        self.flush()
        self._loop.remove_reader(self._read_fd)
        os.close(self._read_fd)

    def _feed(self, data: bytes) -> None:
        # awslambdaric separates the lines of one traceback by carriage returns.
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        whole, newline, rest = (self._partial + data).rpartition(b"\n")
        if newline:
            self._sink(whole + newline)
        self._partial = rest
        if len(rest) > _MAX_LINE_BYTES:
            self.flush()
