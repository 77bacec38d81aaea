"""Clients that send at a bounded rate, each its own requests, and look at every answer."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Any, Final

import aiohttp

from benchmarks.faults.endpoints import CHANGING, FAULTY, HEALTHY, REMOTE, UNKNOWN, Terms
from benchmarks.faults.questions import Question, probabilities

_PATIENCE_S: Final = 35.0
_POLL_S: Final = 0.05
_EACH: Final = 30


@dataclass(frozen=True, slots=True)
class Answer:
    """`at` is in seconds since the phase began; `server_ms` is the function's own time, None if it does not say.

    `verdict` is `right`, `wrong` (another's, or nobody's), `unmarked` (something stood in and nothing says so) or
    `refused` (a problem, which is in `code`).
    """

    at: float
    endpoint: str
    tenant: str
    deadline_ms: int | None
    ms: float
    server_ms: float | None
    status: int
    code: str
    fallback: str
    reason: str
    variant: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Client:
    """Sends one request after the other, a new one each `period_s` at the most, from `offset_s` on."""

    endpoint: str
    tenant: str
    key: str
    period_s: float
    offset_s: float
    questions: Sequence[Question]
    deadlines_ms: Sequence[int | None] = (None,)


def clients(keys: Mapping[str, str], questions: Sequence[Question], terms: Terms, *, rate: float) -> list[Client]:
    """Clients of the faulty endpoints, two tenants for the healthy endpoint, and two for the one that changes.

    Of the faulty ones the first, whose calls are bounded, has two clients, and the others one each: the calls that wait
    leave one of the four environments free. Each second request has a deadline of its own.
    `rate` is that of each of the latter, in requests a second. No two have a question in common.
    """
    numbers = count()

    def mine() -> Sequence[Question]:
        start = next(numbers) * _EACH
        return questions[start : start + _EACH]

    tenants = list(keys)
    made = []
    for place, endpoint in enumerate(FAULTY):
        for turn in range(2 if place == 0 else 1):
            tenant = tenants[(place + turn) % 2]
            offset_s = 0.1 * place + 0.2 * turn
            made.append(Client(endpoint, tenant, keys[tenant], 0.4, offset_s, mine(), (None, terms.deadline_ms)))
    for turn, (tenant, key) in enumerate(keys.items()):
        made.append(Client(HEALTHY, tenant, key, 1 / rate, 0.5 * turn / rate, mine()))
        made.append(Client(CHANGING, tenant, key, 0.5, 0.25 * turn, mine()))
    return made


NEEDED: Final = _EACH * (len(FAULTY) + 5)
"""Questions that `clients` takes."""


async def load(
    url: str,
    clients: Sequence[Client],
    seconds: float,
    *,
    until: Callable[[Sequence[Answer]], bool] = lambda _: False,
    on_time: Callable[[float], None] = lambda _: None,
) -> list[Answer]:
    """What the clients got, in the order of the answers, within `seconds` or until `until` is true of it.

    `on_time` hears how many seconds have passed. Requests under way at the end are waited for.
    """
    answers: list[Answer] = []
    start = perf_counter()
    ended = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(_run(url, client, start, ended, answers))
        while (passed := perf_counter() - start) < seconds and not until(answers):
            on_time(passed)
            await asyncio.sleep(_POLL_S)
        ended.set()
    on_time(seconds)
    return answers


async def _run(url: str, client: Client, start: float, ended: asyncio.Event, answers: list[Answer]) -> None:
    headers = {"Authorization": f"Bearer {client.key}", "Content-Type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
    async with aiohttp.ClientSession(url, headers=headers, timeout=timeout) as session:
        due = start + client.offset_s
        for number in count():
            await asyncio.sleep(max(0.0, due - perf_counter()))
            if ended.is_set():
                return
            due = max(due + client.period_s, perf_counter())
            answers.append(await _ask(session, client, number, start))


async def _ask(session: aiohttp.ClientSession, client: Client, number: int, start: float) -> Answer:
    question = client.questions[number % len(client.questions)]
    deadline_ms = client.deadlines_ms[number % len(client.deadlines_ms)]
    headers = {} if deadline_ms is None else {"X-Sluice-Deadline-Ms": str(deadline_ms)}
    begun = perf_counter()
    async with session.post(f"/v1/models/{client.endpoint}/predict", data=question.body, headers=headers) as answer:
        content = await answer.read()
        ms = (perf_counter() - begun) * 1e3
    document = json.loads(content)
    fallback, _, reason = answer.headers.get("X-Sluice-Fallback", "").partition("; reason=")
    return Answer(
        at=perf_counter() - start,
        endpoint=client.endpoint,
        tenant=client.tenant,
        deadline_ms=deadline_ms,
        ms=ms,
        server_ms=_total(answer.headers.get("Server-Timing", "")),
        status=answer.status,
        code="ok" if answer.status == 200 else str(document.get("code", document.get("message", ""))),
        fallback=fallback,
        reason=reason,
        variant=str(document.get("model", {}).get("variant", "")),
        verdict=_verdict(client, question, answer.status, fallback, document),
    )


def _verdict(client: Client, question: Question, status: int, fallback: str, document: Mapping[str, Any]) -> str:
    if status != 200:
        return "refused"
    if fallback == "static":
        return "right" if set(probabilities(document)) == set(UNKNOWN) else "wrong"
    if not question.is_answered_by(document):
        return "wrong"
    primary = REMOTE if client.endpoint in FAULTY else "function"
    return "right" if fallback or document["model"]["backend"] == primary else "unmarked"


def _total(timing: str) -> float | None:
    """The whole time that a `Server-Timing` header tells, in milliseconds."""
    parts = (part.strip().partition(";dur=") for part in timing.split(","))
    return next((float(ms) for name, _, ms in parts if name == "total"), None)
