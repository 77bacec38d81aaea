"""`/metrics` of a real server: that the figures are those of the traffic, and the formats."""

from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from tests.gpu_service.http.wire import connect, fp32, metric, v2, waiting
from tests.gpu_service.server import Server, running, wait_until
from tests.models import add_model, slow_model, sum_model, write_package

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_package(models / "plus/1", add_model(1))
    write_package(models / "plus/2", add_model(2))
    write_package(models / "sum/1", sum_model())
    write_package(models / "slow/1", slow_model())
    with running(tmp_path_factory.mktemp("log"), SLUICE_MODEL_DIR=str(models), SLUICE_THREADS="1") as server:
        server.wait_for_ping(200)
        yield server


def test_the_counts_are_those_of_the_traffic(server: Server) -> None:
    for count in range(6):
        version = 1 + count % 2
        assert server.predict({"instances": [[1, 2]] * 3}, f"model=plus;version={version}").status_code == 200
    assert server.predict({"instances": [[1, 2, 3]]}, "model=plus;version=1").status_code == 422
    assert server.predict(b'{"instances": [[1, NaN]]}', "model=plus;version=1").status_code == 422
    assert server.predict({"instances": []}, "model=nothing").status_code == 404
    assert server.client.post("/v2/models/plus/infer", json=v2([fp32([1, 2], [1, 2])])).status_code == 200
    assert server.client.post("/v2/models/plus/infer", json=v2([])).status_code == 422
    assert server.client.get("/some/where").status_code == 404
    assert server.client.get("/invocations").status_code == 405
    with connect(server) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert b"400" in connection.recv(65536)

    def of(name: str, **labels: str) -> float:
        return metric(server, f"sluice_{name}", **labels)

    assert of("requests_total", model="plus", version="1", code="ok") == 3
    assert of("requests_total", model="plus", version="2", code="ok") == 4
    assert of("requests_total", model="plus", version="1", code="wrong_shape") == 1
    assert of("refused_total", model="plus", version="1", code="wrong_shape") == 1
    assert of("requests_total", model="plus", version="1", code="not_finite") == 1
    assert of("requests_total", model="plus", version="2", code="missing_field") == 1
    assert of("requests_total", model="plus") == 10
    assert of("step_seconds_count", model="plus", version="2", step="total") == 4
    assert of("batch_rows_sum", model="plus", version="1") == 9
    assert of("batch_rows_sum", model="plus", version="2") == 10
    assert of("answers_total", route="/invocations", status="200") == 6
    assert of("answers_total", route="/invocations", status="422") == 2
    assert of("answers_total", route="/invocations", status="404") == 1
    assert of("answers_total", route="/v2/models/{model}/infer", status="200") == 1
    assert of("answers_total", route="/v2/models/{model}/infer", status="422") == 1
    assert of("answers_total", route="unknown", status="404") == 1
    assert of("answers_total", route="unknown", status="405") == 1
    assert of("sheds_total", reason="malformed_http") == 1
    assert of("models_loaded") == 4
    assert of("executor_slots", executor="cpu") == 1
    assert of("requests_in_flight") == 1  # the scrape itself
    assert of("connections_total", transport="http") >= 2
    assert of("received_bytes_total") > 100
    assert of("sent_bytes_total") > 1000
    assert of("model_memory_bytes", model="sum") > 0


def test_the_gauges_follow_what_waits_and_runs(server: Server) -> None:
    attributes = {"X_Amzn_SageMaker_Custom_Attributes": "model=slow"}
    body = {"instances": [[5_000_000]]}
    with waiting(server, "/invocations", body, **attributes):
        wait_until(lambda: metric(server, "sluice_running_batches", model="slow") == 1)
        with waiting(server, "/invocations", body, **attributes):
            wait_until(lambda: metric(server, "sluice_queue_requests", model="slow") == 1)
            assert metric(server, "sluice_queue_rows", model="slow") == 1
            assert metric(server, "sluice_queue_bytes", model="slow") == 4
            assert metric(server, "sluice_executor_busy_slots", executor="cpu") == 1
            assert metric(server, "sluice_connections_open", transport="http") >= 3
    wait_until(lambda: metric(server, "sluice_requests_total", model="slow", code="caller_gone") == 2)
    assert metric(server, "sluice_queue_requests", model="slow") == 0
    wait_until(lambda: metric(server, "sluice_connections_open", transport="http") == 1)


def test_prometheus_and_openmetrics(server: Server) -> None:
    assert server.predict({"instances": [[1, 2]]}, "model=plus").status_code == 200
    plain = server.client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    found = list(text_string_to_metric_families(plain.text))
    families = {family.name: family for family in found}
    assert families["sluice_requests"].type == "counter"
    assert families["sluice_step_seconds"].type == "histogram"
    for accept in (OPENMETRICS, f"{OPENMETRICS};q=0.9,text/plain;q=0.1"):
        answer = server.client.get("/metrics", headers={"accept": accept})
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")
        parsed = openmetrics_families(answer.text)  # type: ignore[no-untyped-call]
        assert {family.name for family in parsed} == families.keys()
    assert server.client.head("/metrics").content == b""
