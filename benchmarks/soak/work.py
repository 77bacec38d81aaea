"""Jobs whose right answers are known, handed in by several tenants, and looked at one by one."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

ROOT: Final = Path(__file__).parents[2]
MODEL: Final = "tumor"
TENANTS: Final = ("soak-a", "soak-b", "soak-c", "soak-d")
_PLAN: Final = {"per_second": 1000, "burst": 2000}
_AT_ONCE: Final = 8
_TRIES: Final = 6
_TOLERANCE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Question:
    """A body, and the probability of the first class for its row."""

    body: bytes
    right: float


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that was taken on, its tenant, and its question."""

    job_id: str
    tenant: str
    question: Question


def questions(count: int, *, seed: int = 7) -> list[Question]:
    """Between the example's two patients, with noise; answered by ONNX Runtime itself."""
    import onnxruntime

    example = json.loads((ROOT / "examples/tumor/request.json").read_text())["instances"]
    names = list(example[0])
    first, second = (np.array([row[name] for name in names]) for row in example[:2])
    generator = np.random.default_rng(seed)
    share = generator.uniform(-0.1, 1.1, (count, 1))
    noise = generator.normal(1.0, 0.05, (count, len(names)))
    rows = np.abs((first + share * (second - first)) * noise).round(6).astype(np.float32)
    package = ROOT / "build" / "models" / MODEL / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(package, providers=["CPUExecutionProvider"])
    _, answers = session.run(None, {session.get_inputs()[0].name: rows})
    right = np.asarray(answers, dtype=np.float64)[:, 0]
    return [
        Question(
            json.dumps({"instances": [{n: float(f"{v:.9g}") for n, v in zip(names, row, strict=True)}]}).encode(),
            float(value),
        )
        for row, value in zip(rows, right, strict=True)
    ]


def keys_of(api_url: str, admin_key: str) -> dict[str, str]:
    """A key for each of the tenants, which are made if they are not there."""
    with httpx.Client(base_url=api_url, headers={"Authorization": f"Bearer {admin_key}"}, timeout=40) as admin:
        admin.put("/v1/admin/plans/soak", json={"key": _PLAN, "tenant": _PLAN}).raise_for_status()
        keys = {}
        for tenant in TENANTS:
            made = admin.post("/v1/admin/tenants", json={"name": tenant, "plan": "soak"})
            if made.status_code != 409:
                made.raise_for_status()
            key = admin.post("/v1/admin/keys", json={"tenant": tenant, "scopes": ["predict"]}).raise_for_status()
            keys[tenant] = str(key.json()["api_key"])
        return keys


class Clients:
    """One HTTP client for each tenant; use it as a context."""

    def __init__(self, api_url: str, keys: Mapping[str, str]) -> None:
        self._clients = {
            tenant: httpx.AsyncClient(base_url=api_url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
            for tenant, key in keys.items()
        }

    async def __aenter__(self) -> "Clients":
        """The clients."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.aclose()

    async def submit(self, asked: Sequence[Question], taken: Callable[[int, Submitted], None]) -> list[Submitted]:
        """Hand in one job for each question, the tenants in turn; `taken` is told of each, with its number."""
        tenants = list(self._clients)
        jobs: list[Submitted] = []
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(number: int, question: Question) -> None:
            tenant = tenants[number % len(tenants)]
            async with limit:
                answer = await self._post(tenant, f"soak-{number}", question.body)
            job = Submitted(answer.json()["job_id"], tenant, question)
            jobs.append(job)
            taken(number, job)

        await asyncio.gather(*(one(number, question) for number, question in enumerate(asked)))
        return jobs

    async def _post(self, tenant: str, key: str, body: bytes) -> httpx.Response:
        """The answer to a new job; what failed on the other side is asked again under the same key."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        for attempt in range(_TRIES):
            answer = await self._clients[tenant].post(f"/v1/models/{MODEL}/jobs", content=body, headers=headers)
            if answer.status_code < 500 and answer.status_code not in {409, 429}:
                break
            await asyncio.sleep(2**attempt)
        return answer.raise_for_status()

    async def settled(self, poll_s: float) -> None:
        """Wait until every job has ended, looking every `poll_s` seconds."""
        while await self._unfinished():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(poll_s)

    async def _unfinished(self) -> bool:
        for client in self._clients.values():
            answer = await client.get("/v1/jobs", params={"state": "queued,running", "limit": 1})
            answer.raise_for_status()
            document = answer.json()
            if document["jobs"] or document.get("next"):
                return True
        return False

    async def verdicts(self, jobs: Sequence[Submitted]) -> dict[str, str]:
        """What came of each job: `right`, `wrong`, `lost` (there is none of its id), or its state and problem."""
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(job: Submitted) -> tuple[str, str]:
            async with limit:
                answer = await self._clients[job.tenant].get(f"/v1/jobs/{job.job_id}")
            return job.job_id, _verdict(answer, job.question)

        return dict(await asyncio.gather(*(one(job) for job in jobs)))


def _verdict(answer: httpx.Response, question: Question) -> str:
    if answer.status_code == 404:
        return "lost"
    answer.raise_for_status()
    document: dict[str, Any] = answer.json()
    if document["state"] != "succeeded":
        return f"{document['state']} {(document.get('problem') or {}).get('code', '')}".strip()
    (row,) = document["result"]["document"]["predictions"]
    return "right" if abs(float(row["probabilities"]["malignant"]) - question.right) <= _TOLERANCE else "wrong"
