"""`sluice env`: the file for `sam local --env-vars`, and the relay for containers on Linux."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra.cli.env import ENDPOINT, HOST, SAGEMAKER_ENDPOINT
from infra.local.supervisor import PARAMETERS
from infra.local.template import load_stack
from tests.cli.conftest import Cli, Server, local_stack
from tests.conftest import ROOT

AWS_URL = "http://127.0.0.1:4566"


@pytest.fixture
def up(down: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    monkeypatch.chdir(ROOT)
    down.home.claim()
    down.home.publish(local_stack(AWS_URL))
    yield down
    down.home.release()


def test_every_declared_variable_of_every_function_has_its_local_value(up: Cli) -> None:
    made = up.json("env")
    stack = load_stack(ROOT / "template.yaml", parameters=PARAMETERS)
    # What is not declared, `sam local` does not pass; what is a reference, it does not resolve.
    assert {name: set(own) for name, own in made.items()} == {
        name: set(spec.environment) for name, spec in stack.functions.items()
    }
    predict = made["PredictFunction"]
    assert predict["SLUICE_MODELS_TABLE"] == "sluice-ModelsTable"
    assert predict["SLUICE_MODEL_BUCKET"].startswith("sluice-modelbucket-")
    assert predict["SLUICE_ENDPOINT_NAME"]
    assert all(isinstance(value, str) for own in made.values() for value in own.values())


def test_each_endpoint_is_this_machine_as_containers_see_it(up: Cli) -> None:
    for own in up.json("env").values():
        assert own[ENDPOINT] == f"http://{HOST}:4566"
    assert up.json("env", "--host", "10.1.2.3")["PredictFunction"][ENDPOINT] == "http://10.1.2.3:4566"


def test_predictions_in_the_container_have_an_endpoint_of_their_own(up: Cli) -> None:
    # Its local front is another server than that of the other services.
    assert up.json("env")["PredictFunction"][SAGEMAKER_ENDPOINT] == f"http://{HOST}:4566"


def test_for_people_it_is_a_table_with_the_way_to_use_it(up: Cli) -> None:
    result = up("env")
    assert result.exit_code == 0
    assert "SLUICE_KEYS_TABLE" in result.stdout
    assert "sam local invoke PredictFunction" in result.stderr


def test_down_it_exits_with_3(down: Cli) -> None:
    assert down("env", "--json").exit_code == 3


def test_relay_and_json_exclude_each_other(up: Cli) -> None:
    assert up("env", "--json", "--relay", "127.0.0.2").exit_code == 2


def test_an_address_that_is_not_this_machines_is_named(up: Cli) -> None:
    result = up("env", "--relay", "192.0.2.1")
    assert result.exit_code == 2
    assert "192.0.2.1 cannot be listened on" in result.stderr


def test_the_relay_passes_requests_on_until_ctrl_c(down: Cli, server: Server) -> None:
    down.home.claim()
    down.home.publish(local_stack(server.url))
    server.on("GET /thing", {"answer": 42})
    port = server.url.rpartition(":")[2]
    with subprocess.Popen(
        [str(Path(sys.executable).with_name("sluice")), "env", "--relay", "127.0.0.2"],
        env={**os.environ, "SLUICE_HOME": str(down.home.folder)},
        stderr=subprocess.PIPE,
        text=True,
    ) as relay:
        try:
            assert relay.stderr is not None
            assert "Relaying 127.0.0.2" in relay.stderr.readline()
            for _ in range(3):
                assert httpx.get(f"http://127.0.0.2:{port}/thing").json() == {"answer": 42}
            relay.send_signal(signal.SIGINT)
            assert relay.wait(10) == 0
        finally:
            relay.kill()
    down.home.release()


def test_the_help_names_the_options_that_sam_has(up: Cli) -> None:
    shown = re.sub(r"\s+", " ", up("env", "--help").stdout)
    assert "--add-host host.docker.internal:host-gateway" in shown
