"""The local stack from a user's chair: `python -m benchmarks.first_light [--requests N]`.

Starts a stack of its own on free ports, measures, ends it, and writes `build/bench/first_light.{json,md}`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx

from infra.local.ports import Ports

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "bench"
MODELS = ("tumor", "digits", "embed")
# Function → the event file of its first answer.
COLD = {"AuthorizerFunction": "authorizer", "PredictFunction": "predict", "ApiFunction": "api_models"}
COLD_ROUNDS = 5
CLIENTS = 16


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500, help="warm predictions for each model")
    requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as folder, _stack(Path(folder)) as (local, ready_s):
        report = {
            "ready_s": ready_s,
            "warm": {model: _warm(local, model, requests) for model in MODELS},
            "throughput": {model: _throughput(local, model, requests) for model in MODELS},
            "cold": {function: _cold(local, function, event) for function, event in COLD.items()},
        }
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "first_light.json").write_text(json.dumps(report, indent=2))
    (OUT / "first_light.md").write_text(_markdown(report))
    print(_markdown(report))


@contextmanager
def _stack(home: Path) -> Iterator[tuple[dict[str, Any], float]]:
    environment = {**os.environ, **Ports.free().environment(), "SLUICE_HOME": str(home)}
    command = [sys.executable, "-m", "infra.cli.main"]
    start = time.perf_counter()
    subprocess.run([*command, "up", "--detach"], cwd=ROOT, env=environment, check=True, timeout=150)
    ready_s = time.perf_counter() - start
    try:
        yield json.loads((home / "local.json").read_text()), round(ready_s, 2)
    finally:
        subprocess.run([*command, "down"], cwd=ROOT, env=environment, check=True, timeout=60)


def _client(local: Mapping[str, Any]) -> httpx.Client:
    headers = {"Authorization": f"Bearer {local['api_key']}", "Content-Type": "application/json"}
    return httpx.Client(base_url=local["api_url"], headers=headers, timeout=60)


def _warm(local: Mapping[str, Any], model: str, requests: int) -> dict[str, Any]:
    """One client, one request after the other, in milliseconds."""
    body = (ROOT / "examples" / model / "request.json").read_bytes()
    whole: list[float] = []
    inside: list[float] = []
    with _client(local) as client:
        for number in range(requests + 20):
            start = time.perf_counter()
            answer = client.post(f"/v1/models/{model}/predict", content=body).raise_for_status()
            if number >= 20:
                whole.append((time.perf_counter() - start) * 1e3)
                inside.append(float(answer.headers["server-timing"].rpartition("total;dur=")[2]))
    return {"end_to_end_ms": _spread(whole), "handler_ms": _spread(inside)}


def _throughput(local: Mapping[str, Any], model: str, requests: int) -> float:
    """Requests a second with CLIENTS clients at once."""
    body = (ROOT / "examples" / model / "request.json").read_bytes()

    def one_client(_: int) -> None:
        with _client(local) as client:
            for _ in range(requests // CLIENTS):
                client.post(f"/v1/models/{model}/predict", content=body).raise_for_status()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(one_client, range(CLIENTS)))
        start = time.perf_counter()
        list(pool.map(one_client, range(CLIENTS)))
    return round(requests // CLIENTS * CLIENTS / (time.perf_counter() - start), 1)


def _cold(local: Mapping[str, Any], function: str, event: str) -> dict[str, Any]:
    """Process start to first answer, as Lambda would bill and as a client would wait, and the import's part of it."""
    payload = (ROOT / "tests" / "events" / f"{event}.json").read_bytes()
    waits: list[float] = []
    url = f"{local['lambda_url']}/2015-03-31/functions/{local['functions'][function]}/invocations"
    for _ in range(COLD_ROUNDS):
        _end_environments(local, function)
        start = time.perf_counter()
        httpx.post(url, content=payload, timeout=60).raise_for_status()
        waits.append((time.perf_counter() - start) * 1e3)
    imports = [_import_ms(local, function) for _ in range(COLD_ROUNDS)]
    return {"first_answer_ms": round(median(waits), 1), "import_ms": round(median(imports), 1)}


def _end_environments(local: Mapping[str, Any], function: str) -> None:
    status = httpx.get(f"{local['lambda_url']}/_sluice/status", timeout=10).json()
    for entry in status["functions"]:
        if entry["logical_id"] == function:
            for environment in entry["environments"]:
                os.kill(environment["pid"], 9)
    time.sleep(0.3)


def _import_ms(local: Mapping[str, Any], function: str) -> float:
    """The import of the function's handler in a fresh process, under the variables that the template gives it."""
    from infra.local.template import load_stack

    spec = load_stack(ROOT / "template.yaml", parameters={"ContainerImage": "local"}).functions[function]
    module = spec.handler.rpartition(".")[0]
    code = f"import time; t = time.perf_counter(); import {module}; print((time.perf_counter() - t) * 1e3)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": local["aws_endpoint_url"],
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            **spec.environment,
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return float(done.stdout)


def _spread(values: list[float]) -> dict[str, float]:
    return {"p50": round(median(values), 2), "p99": round(quantiles(values, n=100)[98], 2)}


def _markdown(report: Mapping[str, Any]) -> str:
    lines = [f"Ready after {report['ready_s']} s.", "", "| model | end to end p50 / p99 ms | handler p50 / p99 ms |"]
    lines[-1] += f" requests/s, {CLIENTS} clients |"
    lines.append("|---|---|---|---|")
    for model, warm in report["warm"].items():
        whole, inside = warm["end_to_end_ms"], warm["handler_ms"]
        times = f"{whole['p50']} / {whole['p99']} | {inside['p50']} / {inside['p99']}"
        lines.append(f"| {model} | {times} | {report['throughput'][model]} |")
    lines += ["", "| function | cold: first answer ms | of that the handler's import ms |", "|---|---|---|"]
    lines += [f"| {name} | {cold['first_answer_ms']} | {cold['import_ms']} |" for name, cold in report["cold"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
