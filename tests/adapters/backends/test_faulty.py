"""The faulty server as a process of its own, turned over HTTP."""

import json
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.adapters.backends.conftest import Serving
from tests.conftest import ROOT


@pytest.fixture
def process(container: Serving) -> Iterator[httpx.Client]:
    command = [sys.executable, "-m", "tests.adapters.backends.faulty", "--upstream", container.url]
    with subprocess.Popen(
        [*command, "--upstream-grpc", container.grpc_target], cwd=ROOT, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        addresses = json.loads(child.stdout.readline())
        assert addresses["grpc_target"].startswith("127.0.0.1:")
        with httpx.Client(base_url=addresses["url"], trust_env=False, timeout=30) as client:
            yield client
        child.terminate()


def infer(client: httpx.Client) -> httpx.Response:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    return client.post("/v2/models/add/infer", json={"inputs": [tensor]})


def test_it_is_turned_and_healed_while_it_runs(process: httpx.Client) -> None:
    assert infer(process).json()["outputs"][0]["data"] == [3, 4]
    rule = {"kind": "status", "status": 503, "body": "{}", "headers": {"retry-after": "2"}, "every": 2, "times": 2}
    assert process.put("/-/faults", json=rule).json()["fault"]["kind"] == "status"
    assert [infer(process).status_code for _ in range(6)] == [503, 200, 503, 200, 200, 200]
    assert process.get("/-/faults").json()["calls"] == {"pass": 5, "status": 2}
    process.put("/-/faults", json={"kind": "closed"})
    with pytest.raises(httpx.RemoteProtocolError):
        infer(process)
    assert process.put("/-/faults", json={}).json()["calls"] == {}
    assert infer(process).status_code == 200


def test_what_it_does_not_know_it_refuses(process: httpx.Client) -> None:
    for document in ({"kind": "bad weather"}, {"kind": "hang", "colour": "red"}):
        assert process.put("/-/faults", json=document).status_code == 400
    assert infer(process).status_code == 200
