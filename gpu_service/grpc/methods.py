"""What the server knows of a method: its name, and what serves it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gpu_service.grpc.stream import Stream

SERVICE = "inference.GRPCInferenceService"


class Conversation(Protocol):
    """Serves one RPC that streams in both directions."""

    def message(self, data: bytes) -> None:
        """A message has come."""

    def ended(self) -> None:
        """No further message will come."""

    def taken(self) -> None:
        """The client has taken one of the answers."""

    def abandoned(self) -> None:
        """The stream is closed: nobody waits for what is still on its way."""

    def drain(self) -> None:
        """The server stops: answer what has come, then end."""


class Method:
    """`unary` is called with the one message of an RPC and answers its stream at once or later; `converse` streams."""

    __slots__ = ("converse", "name", "unary")

    def __init__(
        self,
        name: str,
        *,
        unary: "Callable[[Stream, bytes], None] | None" = None,
        converse: "Callable[[Stream], Conversation] | None" = None,
    ) -> None:
        self.name = name
        self.unary = unary
        self.converse = converse
