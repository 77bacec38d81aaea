"""The ports of the local stack on 127.0.0.1."""

import socket
from dataclasses import asdict, dataclass, fields
from typing import Self

import psutil

HOST = "127.0.0.1"


class PortTaken(Exception):
    """A port that the stack needs is in use."""


@dataclass(frozen=True)
class Ports:
    """Where each part listens; `variable` names what moves it."""

    api: int = 8000
    container: int = 8080
    grpc: int = 8081
    aws: int = 4566
    sagemaker: int = 8082
    lambda_: int = 9001

    @staticmethod
    def variable(name: str) -> str:
        """The environment variable (and `make` variable) that moves a port."""
        return "PORT" if name == "api" else f"{name.strip('_').upper()}_PORT"

    def url(self, name: str) -> str:
        """The address of a part."""
        return f"http://{HOST}:{asdict(self)[name]}"

    @classmethod
    def free(cls) -> Self:
        """Ports that nobody used a moment ago, for tests and benchmarks."""
        probes = [socket.socket() for _ in fields(cls)]
        try:
            for probe in probes:
                probe.bind((HOST, 0))
            return cls(*(probe.getsockname()[1] for probe in probes))
        finally:
            for probe in probes:
                probe.close()

    def environment(self) -> dict[str, str]:
        """The variables that make `sluice up` listen on these ports."""
        return {self.variable(item.name): str(asdict(self)[item.name]) for item in fields(self)}

    def check(self) -> None:
        """Raise PortTaken, with who holds it and what to do, unless every port is free."""
        seen: dict[int, str] = {}
        for item in fields(self):
            port = asdict(self)[item.name]
            variable = self.variable(item.name)
            if port in seen:
                raise PortTaken(f"{seen[port]} and {variable} are both {port}: give them different ports.")
            seen[port] = variable
            if not _is_free(port):
                hint = f"End that, or choose another: {variable}={port + 100} make run"
                raise PortTaken(f"Port {port} is taken{_holder(port)}. {hint}")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    """` by NAME (process N)`, where the system tells it."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        return ""
    return ""
