"""What a faulty model server does to a call, and the switch that says which of it it does now.

Kinds of faults:

    pass              the upstream's own answer
    slow              the same, after `seconds`
    reset-unread      the connection is reset before the request was read
    reset             … after the request was read
    closed            … is closed in good order, without an answer
    hang              no answer, for as long as the caller waits
    drip              the answer's bytes one by one, every `seconds`
    truncated         half of the answer, then the end of the connection
    status            an answer with `status`, `body` and `headers` (gRPC: `status` is the code's name)
    garbage           an answer that is none of the transport
    nonsense          an answer of the transport whose body is none of the protocol
    redirect          to another place
    bomb              a compressed answer that grows beyond every bound
    endless           more bytes than anybody wants
    model, version, id, dtype, shape, rows, missing, further     the upstream's answer with another one of these
    reordered, parameters, mixed, json, typed, nameless          the same answer in another form of the protocol
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from threading import Lock
from typing import Any, Final

MUTATIONS: Final = frozenset(
    {
        *("model", "version", "id", "dtype", "shape", "rows", "missing", "further"),
        *("reordered", "parameters", "mixed", "json", "typed", "nameless"),
    }
)
KINDS: Final = MUTATIONS | {
    *("pass", "slow", "reset-unread", "reset", "closed", "hang", "drip", "truncated", "status"),
    *("garbage", "nonsense", "redirect", "bomb", "endless"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One of `KINDS`, with what it needs."""

    kind: str = "pass"
    seconds: float = 0.0
    status: int | str = 500
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is none of {', '.join(sorted(KINDS))}")


PASS: Final = Fault()


class Switch:
    """Says what happens to the next call; any thread may turn it. `calls` counts what came, by the fault it met."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._fault = PASS
        self._times: int | None = None
        self._every = 1
        self._seen = 0
        self.calls: Counter[str] = Counter()

    def set(self, fault: Fault, *, times: int | None = None, every: int = 1) -> None:
        """Do this to the next `times` calls (None: to all until `heal`), to each `every`-th of them."""
        with self._lock:
            self._fault, self._times, self._every, self._seen = fault, times, max(every, 1), 0

    def heal(self) -> None:
        """Pass all calls on, and forget the counts."""
        with self._lock:
            self._fault, self._times, self._every = PASS, None, 1
            self.calls.clear()

    def take(self) -> Fault:
        """What happens to this call."""
        with self._lock:
            fault = self._fault if self._times != 0 and self._seen % self._every == 0 else PASS
            self._seen += 1
            if self._times is not None and fault is not PASS:
                self._times -= 1
            self.calls[fault.kind] += 1
            return fault

    def peek(self) -> str:
        """The kind of fault that is set."""
        with self._lock:
            return self._fault.kind if self._times != 0 else PASS.kind

    def apply(self, document: bytes) -> None:
        """Turn it as a JSON document says: the members of `Fault`, `times` and `every`; an empty one heals."""
        members: dict[str, Any] = json.loads(document or b"{}")
        if not members:
            self.heal()
            return
        times, every = members.pop("times", None), members.pop("every", 1)
        self.set(Fault(**members), times=times, every=every)

    def state(self) -> bytes:
        """What is set, and what has come, as JSON."""
        with self._lock:
            return json.dumps({"fault": asdict(self._fault), "times": self._times, "calls": self.calls}).encode()
