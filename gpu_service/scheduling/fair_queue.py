"""The requests that wait for one model: by priority, then fair between tenants, and mergeable ones together.

Within a priority, tenants share by start-time fair queueing: a request's start tag is the later of the virtual time and
the tenant's last finish tag, its finish tag lies its rows further, and the least start tag is served first. The virtual
time is the start tag of what was served last. A backlog of one tenant thus delays another's request by one batch.
Source: Goyal, Vin, Cheng, "Start-time Fair Queuing" (SIGCOMM 1996), section 2.

Tags are given where they are needed: a tenant's requests stand in a line of their own, of which only the first has a
tag, so that what is dropped unserved costs its tenant nothing. Requests that arrive between two batches are only put on
a list; if the next batch takes all there is, nothing is ever sorted.
"""

from collections import deque
from collections.abc import Hashable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, Protocol, TypeVar

# How many waiting requests one batch may look past in search of those that it can merge.
_MAX_PASSED = 32
# A priority keeps the tags of tenants that wait for nothing while they are ahead of the virtual time: up to this many,
# and one more for each tenant that waits.
_IDLE_TAGS = 256


class Waiting(Protocol):
    """What the queue needs to know of a request; see `gpu_service.inference.request.InferenceRequest`.

    A run that begins less than `lead` seconds before the deadline would not be over in time.
    """

    tenant: str
    priority: int
    rows: int
    nbytes: int
    deadline: float
    lead: float
    cancelled: bool
    shape_key: Hashable


R = TypeVar("R", bound=Waiting)


class _Line(Generic[R]):
    """The requests of one tenant at one priority. `tag` is the start tag of the first, or the last finish tag."""

    __slots__ = ("level", "passed", "requests", "rows", "tag", "tenant")

    def __init__(self, level: "_Level[R]", tenant: str) -> None:
        self.level = level
        self.tenant = tenant
        self.requests: deque[R] = deque()
        self.rows = 0
        self.tag = 0
        self.passed: list[R] = []


class _Level(Generic[R]):
    """One priority: its own virtual time, since the levels below it stand still while it is served."""

    __slots__ = ("in_use", "lines", "priority", "virtual_time")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.virtual_time = 0
        self.in_use = 0  # lines that hold requests
        self.lines: dict[str, _Line[R]] = {}


class FairQueue(Generic[R]):
    """Not thread-safe. `rows` and `nbytes` sum up all that wait; who is cancelled counts until a batch comes by.

    How much may wait is for the caller to bound.
    """

    __slots__ = (
        "_arrivals",
        "_count",
        "_heap",
        "_key",
        "_levels",
        "_requests_of",
        "_turn",
        "_uniform",
        "nbytes",
        "rows",
    )

    def __init__(self) -> None:
        self._count = 0
        self._arrivals: list[R] = []  # not yet in their lines
        self._levels: dict[int, _Level[R]] = {}
        self._heap: list[tuple[int, int, int, _Line[R]]] = []  # priority, tag, turn, line: one entry for a line in use
        self._requests_of: dict[str, int] = {}  # by tenant, arrivals not counted
        self._turn = 0
        self._key: Hashable = None
        self._uniform = True  # whether all that wait have the shape key `_key`
        self.rows = 0
        self.nbytes = 0

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return self._count > 0

    def push(self, request: R) -> None:
        """Let `request` wait."""
        if self._uniform:
            key = request.shape_key
            if not self._count:
                self._key = key
            elif key is not self._key and key != self._key:
                self._uniform = False
        self._arrivals.append(request)
        self._count += 1
        self.rows += request.rows
        self.nbytes += request.nbytes

    def take(self, now: float, max_rows: int, max_bytes: int) -> tuple[list[R], list[R]]:
        """The requests of the next batch, and those met on the way that are cancelled or too late to begin at `now`.

        The first in line decides: others join it that have an equal shape key and fit within the bounds. A first one
        that is over them itself goes alone. What is passed over keeps its place.
        """
        if self._uniform and self.rows <= max_rows and self.nbytes <= max_bytes:
            return _part(self.clear(), now)
        self._line_up()
        return self._collect(now, max_rows, max_bytes)

    def clear(self) -> list[R]:
        """Everything that waits, taken out in no order that matters."""
        requests = self._arrivals
        if self._heap:
            requests = [request for entry in self._heap for request in entry[3].requests] + requests
            self._heap = []
            self._requests_of = {}
        if self._levels:
            self._levels = {}  # with nobody waiting, nobody has an advantage to be kept
        self._arrivals = []
        self._uniform = True
        self._count = self.rows = self.nbytes = 0
        return requests

    def remove_expired(self, now: float) -> list[R]:
        """Take out what is cancelled, or so close to its deadline at `now` that it is too late to begin."""
        self._line_up()
        removed: list[R] = []
        for entry in self._heap:
            line = entry[3]
            alive, dead = _part(line.requests, now)
            if dead:
                line.requests = deque(alive)
                removed += dead
                for request in dead:
                    self._leave(line, request)
        if removed:
            for entry in self._heap:
                if not entry[3].requests:
                    self._leave_level(entry[3].level)
            self._heap = [entry for entry in self._heap if entry[3].requests]
            heapify(self._heap)
            self._reset_if_empty()
        return removed

    @property
    def first(self) -> R:
        """Who is served next, or nearly so: of the last arrivals only the first is looked at. Needs one that waits."""
        return self._heap[0][3].requests[0] if self._heap else self._arrivals[0]

    @property
    def tenants(self) -> int:
        """How many tenants have requests waiting."""
        self._line_up()
        return len(self._requests_of)

    def tenant_requests(self, tenant: str) -> int:
        """How many requests of `tenant` wait."""
        self._line_up()
        return self._requests_of.get(tenant, 0)

    def rows_ahead(self, tenant: str, priority: int) -> int:
        """About how many of the waiting rows would be served before a new request of `tenant`.

        All of a more urgent priority, those of the tenant itself, and as much of every other tenant's. Grows with the
        number of tenants that wait.
        """
        self._line_up()
        level = self._levels.get(priority)
        own = level.lines.get(tenant) if level is not None else None
        tag = max(level.virtual_time if level is not None else 0, own.tag + own.rows if own is not None else 0)
        ahead = 0
        for urgency, _, _, line in self._heap:
            if urgency < priority or line is own:
                ahead += line.rows
            elif urgency == priority and line.tag <= tag:
                ahead += min(tag - line.tag + line.requests[0].rows, line.rows)
        return ahead

    def _line_up(self) -> None:
        """Put the arrivals into their lines: in time, since virtual time stands still between two batches."""
        if not self._arrivals:
            return
        requests_of = self._requests_of
        for request in self._arrivals:
            tenant = request.tenant
            level = self._levels.get(request.priority)
            if level is None:
                level = self._levels[request.priority] = _Level(request.priority)
            line = level.lines.get(tenant)
            if line is None:
                self._forget_idle(level)
                line = level.lines[tenant] = _Line(level, tenant)
            if not line.requests:
                line.tag = max(line.tag, level.virtual_time)
                level.in_use += 1
                self._turn += 1
                heappush(self._heap, (level.priority, line.tag, self._turn, line))
            line.requests.append(request)
            line.rows += request.rows
            requests_of[tenant] = requests_of.get(tenant, 0) + 1
        self._arrivals = []

    def _collect(self, now: float, max_rows: int, max_bytes: int) -> tuple[list[R], list[R]]:
        heap = self._heap
        batch: list[R] = []
        dropped: list[R] = []
        passed: list[_Line[R]] = []
        rows = nbytes = 0
        key: Hashable = None
        while heap and len(passed) < _MAX_PASSED and (not batch or (rows < max_rows and nbytes < max_bytes)):
            priority, position, _, line = heap[0]
            request = line.requests.popleft()
            if request.cancelled or request.deadline - request.lead <= now:
                dropped.append(request)
                self._leave(line, request)
            elif not batch or (
                rows + request.rows <= max_rows and nbytes + request.nbytes <= max_bytes and request.shape_key == key
            ):
                key = request.shape_key
                batch.append(request)
                self._leave(line, request)
                line.level.virtual_time = max(line.level.virtual_time, line.tag)
                line.tag += request.rows
                position += request.rows
                rows += request.rows
                nbytes += request.nbytes
            else:
                line.passed.append(request)
                passed.append(line)
                position += request.rows  # others may come before what this line has behind it
            self._next(line, priority, position)
        if passed:
            self._put_back(passed)
        self._reset_if_empty()
        return batch, dropped

    def _next(self, line: _Line[R], priority: int, position: int) -> None:
        """Replace the line at the head of the heap by its next request, if it has one."""
        if line.requests:
            self._turn += 1
            heapreplace(self._heap, (priority, position, self._turn, line))
        else:
            heappop(self._heap)
            self._leave_level(line.level)

    def _put_back(self, passed: list[_Line[R]]) -> None:
        """Give those that were passed over their places back."""
        turns = {entry[3]: entry[2] for entry in self._heap}
        for line in passed:
            if line not in turns:  # nothing was left behind those passed, so it went from the heap
                turns[line] = -len(turns)
                self._levels[line.level.priority] = line.level
                line.level.in_use += 1
            line.requests.extendleft(reversed(line.passed))
            line.passed = []
        self._heap = [(line.level.priority, line.tag, turn, line) for line, turn in turns.items()]
        heapify(self._heap)

    def _leave_level(self, level: _Level[R]) -> None:
        """A line of `level` has run empty. With the last one its busy period ends, and all tags are worth the same."""
        level.in_use -= 1
        if not level.in_use:
            del self._levels[level.priority]

    def _leave(self, line: _Line[R], request: R) -> None:
        line.rows -= request.rows
        self._count -= 1
        self.rows -= request.rows
        self.nbytes -= request.nbytes
        left = self._requests_of[request.tenant] - 1
        if left:
            self._requests_of[request.tenant] = left
        else:
            del self._requests_of[request.tenant]

    def _forget_idle(self, level: _Level[R]) -> None:
        """Keep the tags bounded: first those go that the virtual time has passed, then those of all who do not wait."""
        bound = _IDLE_TAGS + 2 * len(self._heap)
        if len(level.lines) < bound:
            return
        lines, now = level.lines, level.virtual_time
        level.lines = {tenant: line for tenant, line in lines.items() if line.requests or line.tag > now}
        if len(level.lines) * 2 > bound:
            level.lines = {tenant: line for tenant, line in lines.items() if line.requests}

    def _reset_if_empty(self) -> None:
        if not self._heap:
            self.clear()  # nobody waits: whatever comes next may have one shape key again


def _part(requests: "list[R] | deque[R]", now: float) -> tuple[list[R], list[R]]:
    """Those that somebody waits for, and the others."""
    for request in requests:
        if request.cancelled or request.deadline - request.lead <= now:
            break
    else:
        return (requests if isinstance(requests, list) else list(requests)), []
    alive: list[R] = []
    dead: list[R] = []
    for request in requests:
        (dead if request.cancelled or request.deadline - request.lead <= now else alive).append(request)
    return alive, dead
