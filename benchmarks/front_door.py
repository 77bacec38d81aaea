"""What the front door costs: `python -m benchmarks.front_door [--requests N] [--cold-rounds N]`.

In one process, interleaved: the predict function's handler with everything on (rate limit, log line, metrics), the same
with an idempotency key, a bare FastAPI + Mangum handler that only predicts, and raw `session.run`. AWS is the local
runtime's, in a process of its own; what is spent in its calls is told apart, and the calls are counted. Then cold
starts of predict and authorizer beside processes that only import what they cannot do without. Writes
`build/bench/front_door.{json,md}`.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from statistics import median, quantiles
from typing import Any

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "bench"
MODEL = "tumor"
WARM_UP = 50
PREDICT_FLOOR = """
import fastapi, mangum, onnxruntime
from shared.adapters.aws import client
client("dynamodb")
"""
AUTHORIZER_FLOOR = """
from shared.adapters.aws import client
client("dynamodb")
"""
_SERVE = """
from infra.local.aws_services import build_app, serve
serve(build_app("http://127.0.0.1:1"), 0, lambda port: print(port, flush=True))
"""

Call = Callable[[], None]


class AwsTime:
    """Time and number of botocore's calls in this process; with `at_once` each is answered as the one before it."""

    def __init__(self) -> None:
        from botocore.client import BaseClient

        self.seconds = 0.0
        self.calls: Counter[str] = Counter()
        self.at_once = False
        answers: dict[str, Any] = {}
        call = BaseClient._make_api_call  # type: ignore[attr-defined]

        def timed(client: Any, operation: str, arguments: Any) -> Any:
            if self.at_once and operation in answers:
                return answers[operation]
            start = time.perf_counter()
            try:
                answers[operation] = call(client, operation, arguments)
                return answers[operation]
            finally:
                self.seconds += time.perf_counter() - start
                self.calls[operation] += 1

        BaseClient._make_api_call = timed  # type: ignore[attr-defined]


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="of each kind")
    parser.add_argument("--cold-rounds", type=int, default=9)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, _aws() as url:
        environments = _prepare(url, Path(folder))
        report: dict[str, Any] = {
            **_warm(environments["PredictFunction"], given.requests),
            "cold": {
                "predict": _cold("functions.predict.handler", environments, PREDICT_FLOOR, given.cold_rounds),
                "authorizer": _cold("functions.authorizer.handler", environments, AUTHORIZER_FLOOR, given.cold_rounds),
            },
        }
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "front_door.json").write_text(json.dumps(report, indent=2))
    (OUT / "front_door.md").write_text(_markdown(report))
    print(_markdown(report))


@contextmanager
def _aws() -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-c", _SERVE], cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            if server.stdout is None:
                raise RuntimeError("the AWS services tell no port")
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


def _prepare(url: str, cache: Path) -> dict[str, dict[str, str]]:
    """Stores, demo tenant and model; the environment of each function."""
    from infra.local.aws_client import ACCESS_KEY, SECRET_KEY
    from infra.local.resources import provision
    from infra.local.seed import seed_keys, seed_models
    from infra.local.stack import REGION
    from infra.local.template import load_stack

    stack = load_stack(ROOT / "template.yaml")
    provision(stack, url, on_progress=lambda _line: None)
    seed_keys(stack, url)
    seed_models(stack, url, [ROOT / "build" / "models" / MODEL / "1"])
    shared = {
        "AWS_ENDPOINT_URL": url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
        "SLUICE_CACHE_DIR": str(cache),
    }
    return {name: {**spec.environment, **shared} for name, spec in stack.functions.items()}


class Context:
    """What the functions read of Lambda's context."""

    aws_request_id = "8f5a1e2c-3d4b-4c6f-9a7e-0b1c2d3e4f50"

    def get_remaining_time_in_millis(self) -> int:
        """Far from the end."""
        return 29_000


def _warm(environment: Mapping[str, str], requests: int) -> dict[str, Any]:
    os.environ.update(environment)
    aws = AwsTime()
    from functions.predict.bootstrap import build
    from shared.domain.plans import Limits, Rate
    from shared.domain.principal import Principal
    from shared.web.http_event import http_event

    body = (ROOT / "examples" / MODEL / "request.json").read_text()
    fast = Rate(1_000_000, 1_000_000)
    caller = Principal("demo", "k" * 16, frozenset({"predict"}), "demo", limits=Limits(fast, fast))
    path, route = f"/v1/models/{MODEL}/predict", "/v1/models/{model}/predict"
    request = http_event("POST", path, route=route, body=body, principal=caller)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):  # where the log goes is settled by `build`
        kinds = _kinds(build(os.environ), _bare(), _raw(body), request)
        waiting = _interleaved(kinds, aws, requests)
        aws.at_once = True
        del kinds["idempotency key"]  # its answers differ
        at_once = _interleaved(kinds, aws, requests)
        return {"warm": waiting, "at_once": at_once}


def _kinds(handler: Any, bare: Any, raw: Call, request: Mapping[str, Any]) -> dict[str, Call]:
    context = Context()

    def checked(function: Any, headers: Mapping[str, str]) -> None:
        answer = function({**request, "headers": {**request["headers"], **headers}}, context)
        if answer["statusCode"] != 200:
            raise RuntimeError(f"{answer['statusCode']}: {answer['body']}")

    return {
        "everything": lambda: checked(handler, {}),
        "idempotency key": lambda: checked(handler, {"idempotency-key": uuid.uuid4().hex}),
        "bare handler": lambda: checked(bare, {}),
        "raw session.run": raw,
    }


def _interleaved(kinds: Mapping[str, Call], aws: AwsTime, requests: int) -> dict[str, Any]:
    """One call of each kind after the other, so that all meet the same caches and the same neighbours."""
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    calls: dict[str, Counter[str]] = {name: Counter() for name in kinds}
    order = list(kinds)
    for number in range(WARM_UP + requests):
        for name in order[number % len(order) :] + order[: number % len(order)]:
            aws.seconds = 0.0
            aws.calls.clear()
            start = time.perf_counter()
            kinds[name]()
            whole = time.perf_counter() - start
            if number >= WARM_UP:
                results[name].append((whole, aws.seconds))
                calls[name] += aws.calls
    return {name: _figures(times, calls[name]) for name, times in results.items()}


def _figures(times: list[tuple[float, float]], calls: Counter[str]) -> dict[str, Any]:
    own = [(whole - aws) * 1e3 for whole, aws in times]
    return {
        "ms_p50": round(median(whole for whole, _ in times) * 1e3, 3),
        "own_ms_p50": round(median(own), 3),
        "own_ms_p99": round(quantiles(own, n=100)[98], 3),
        "calls": {name: round(count / len(times), 3) for name, count in calls.items()},
    }


def _session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = ROOT / "build" / "models" / MODEL / "1" / "model.onnx"
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _rows(instances: list[dict[str, float]]) -> Any:
    import numpy as np

    return np.array([list(instance.values()) for instance in instances], dtype=np.float32)


def _bare() -> Any:
    """FastAPI, a pydantic model, `session.run`, Mangum: nothing else."""
    from fastapi import FastAPI
    from mangum import Mangum
    from pydantic import BaseModel

    class PredictRequest(BaseModel):
        instances: list[dict[str, float]]

    app = FastAPI()
    session = _session()
    name = session.get_inputs()[0].name

    @app.post("/v1/models/tumor/predict")
    async def predict(request: PredictRequest) -> dict[str, Any]:
        label, probabilities = session.run(None, {name: _rows(request.instances)})
        return {"label": label.tolist(), "probabilities": probabilities.tolist()}

    asyncio.set_event_loop(asyncio.new_event_loop())
    return Mangum(app, lifespan="off")


def _raw(body: str) -> Call:
    session = _session()
    feed = {session.get_inputs()[0].name: _rows(json.loads(body)["instances"])}

    def run() -> None:
        session.run(None, feed)

    return run


def _cold(module: str, environments: Mapping[str, Mapping[str, str]], floor: str, rounds: int) -> dict[str, float]:
    """Seconds from start to end of a process that imports the handler, and of one that imports the floor."""
    function = {"functions.predict.handler": "PredictFunction", "functions.authorizer.handler": "AuthorizerFunction"}
    environment = {"PATH": os.environ["PATH"], "ORT_DISABLE_TELEMETRY": "1", **environments[function[module]]}
    times: dict[str, list[float]] = {"ours": [], "floor": []}
    for number in range(rounds + 1):  # the first writes .pyc files, and does not count
        for name, code in (("ours", f"import {module}"), ("floor", floor)):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=60)
            if number:
                times[name].append(time.perf_counter() - start)
    ours, floor_s = median(times["ours"]), median(times["floor"])
    ratios = [one / other for one, other in zip(times["ours"], times["floor"], strict=True)]
    return {"ours_ms": round(ours * 1e3), "floor_ms": round(floor_s * 1e3), "ratio": round(median(ratios), 2)}


def _markdown(report: Mapping[str, Any]) -> str:
    lines = ["| warm, tumor | p50 ms | outside AWS calls p50 / p99 ms | AWS calls a request |", "|---|---|---|---|"]
    for name, row in report["warm"].items():
        calls = ", ".join(f"{count:g} {operation}" for operation, count in row["calls"].items()) or "none"
        lines.append(f"| {name} | {row['ms_p50']} | {row['own_ms_p50']} / {row['own_ms_p99']} | {calls} |")
    for label, figures in (("As above", report["warm"]), ("With AWS answering at once", report["at_once"])):
        own, bare, raw = (figures[name]["own_ms_p50"] for name in ("everything", "bare handler", "raw session.run"))
        lines += ["", f"{label}: {own - raw:.3f} ms over raw `session.run`, {own / bare:.2f} times the bare handler."]
    lines.append("")
    lines += ["| cold process | ours ms | floor ms | ratio |", "|---|---|---|---|"]
    lines += [f"| {name} | {c['ours_ms']} | {c['floor_ms']} | {c['ratio']} |" for name, c in report["cold"].items()]
    return re.sub(r"[ ]+\n", "\n", "\n".join(lines)) + "\n"


if __name__ == "__main__":
    main()
