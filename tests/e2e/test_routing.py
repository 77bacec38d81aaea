"""Versions, backends, fallbacks and caches of endpoints on the running stack, changed while it runs."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import pytest

from shared.domain.dtypes import DType
from tests.adapters.backends.faults import Fault
from tests.adapters.backends.faulty import Faulty
from tests.e2e.callers import Callers, lines, until
from tests.e2e.conftest import Sluice
from tests.e2e.endpoints import IN_FORCE_S, Published, publish_adding, publish_to, variant_of
from tests.models import add_model, manifest, tensor, write_package
from tests.pipelines import pipeline_document, step, write_pipeline

pytestmark = pytest.mark.e2e

STATIC = {"kind": "static", "outputs": {"y": [-1.0, -1.0]}}


@pytest.fixture(scope="module")
def two(sluice: Sluice, admin: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """An endpoint with two versions, for one test after the other."""
    return publish_adding(sluice, admin, tmp_path_factory.mktemp("two"), 1, 2)


@pytest.fixture(scope="module")
def faulty(sluice: Sluice) -> Iterator[Faulty]:
    local = sluice.local
    with Faulty(local["container_url"], local["grpc_target"]) as server:
        yield server


@pytest.fixture(scope="module")
def remote(sluice: Sluice, admin: httpx.Client, tmp_path_factory: pytest.TempPathFactory, faulty: Faulty) -> Published:
    """An endpoint whose model runs in the container behind the faulty server, once it is loaded there."""
    made = publish_adding(sluice, admin, tmp_path_factory.mktemp("remote"), 1, placement="container")
    ready = f"{sluice.local['container_url']}/v2/models/{made.name}/ready"
    assert until(lambda: httpx.get(ready).status_code == 200)
    return made


def test_a_change_needs_the_revision_it_is_made_from_and_holds_everywhere_soon(
    two: Published, admin: httpx.Client
) -> None:
    path = f"/v1/admin/endpoints/{two.name}"
    assert admin.put(path, json={}).status_code == 428
    first = two.configure(variants=[{"name": "one", "version": 1}])
    stale = admin.put(path, json={"timeout_ms": 1000}, headers={"If-Match": '"0"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    assert two.settles(admin, "one")
    second = two.configure(variants=[{"name": "two", "version": 2}])
    changed = monotonic()
    assert (first, second) == ('"1"', '"2"')
    # All environments at once, not only the one that was used last.
    with ThreadPoolExecutor(8) as callers:

        def everywhere(_: object = None) -> bool:
            answers = [each.result() for each in [callers.submit(two.ask, admin) for _ in range(16)]]
            values = {(variant_of(one), *one.json()["predictions"][0]) for one in answers}
            assert values <= {("one", 2.0, 3.0), ("two", 3.0, 4.0)}
            return values == {("two", 3.0, 4.0)}

        sleep(max(0.0, IN_FORCE_S - (monotonic() - changed)))
        assert everywhere()
    history = admin.get(f"{path}/history").json()["revisions"]
    assert [one["revision"] for one in history] == [2, 1]


def test_a_canary_by_its_weight_a_label_and_a_version_by_the_request(two: Published, api: httpx.Client) -> None:
    two.configure(
        variants=[{"name": "main", "version": "prod", "weight": 95}, {"name": "canary", "version": 2, "weight": 5}],
        labels={"prod": 1},
        sticky="header:x-user",
    )
    assert until(lambda: set(two.variants(api, 10)) <= {"main", "canary"}, IN_FORCE_S + 1)
    assert until(lambda: "one" not in two.variants(api, 5) and "two" not in two.variants(api, 5), IN_FORCE_S)
    users = {f"user-{number}": variant_of(two.ask(api, {"X-User": f"user-{number}"})) for number in range(200)}
    # A binomial with n = 200 and p = 0.05 lies outside 1 to 27 less than once in ten thousand times.
    assert 1 <= sum(variant == "canary" for variant in users.values()) <= 27
    again = {user: variant_of(two.ask(api, {"X-User": user})) for user in list(users)[:40]}
    assert again.items() <= users.items()
    for wanted, values in (("prod", [2.0, 3.0]), (2, [3.0, 4.0])):
        answer = two.ask(api, version=wanted)
        assert (answer.status_code, answer.json()["predictions"]) == (200, [values])
    assert two.ask(api, version="nightly").json()["code"] == "version_not_found"


def test_exposures_shadows_and_costs_are_in_the_line_and_in_the_counters(
    sluice: Sluice, two: Published, api: httpx.Client, admin: httpx.Client
) -> None:
    two.configure(
        variants=[{"name": "a", "version": 1}, {"name": "b", "version": 2, "weight": 0}],
        experiment={"name": "sums", "unit": "header:x-unit", "arms": {"a": 50, "b": 50}},
        shadow={"variant": "b", "share": 1},
    )
    assert until(lambda: set(two.variants(api, 8)) <= {"a", "b"}, IN_FORCE_S + 1)
    sleep(1)
    answers = [two.ask(api, {"X-Unit": f"unit-{number}"}) for number in range(30)]
    arms = {variant_of(answer) for answer in answers}
    assert arms == {"a", "b"}
    found = []
    for answer in answers:
        (line,) = lines(sluice, "PredictFunction", answer.headers["x-request-id"])
        found.append(line)
        assert line["experiment"]["name"] == "sums"
        assert line["experiment"]["arm"] == line["variant"] == variant_of(answer)
        assert round(float(answer.headers["x-sluice-cost-usd"]) * 1e9) == line["cost_nusd"] > 0
        assert answer.headers["x-sluice-prices-date"]
    shadows = [line["shadow"] for line in found if line["variant"] == "a"]
    assert {one["variant"] for one in shadows} == {"b"}
    assert {one["state"] for one in shadows} <= {"compared", "dropped"}
    assert all("shadow" not in line for line in found if line["variant"] == "b")

    def counted() -> bool:
        traffic = admin.get(f"/v1/admin/endpoints/{two.name}/traffic").json()
        return "sums" in json.dumps(traffic)

    assert until(counted)


def test_a_failing_backend_is_stood_in_for_left_alone_and_tried_again(
    remote: Published, faulty: Faulty, api: httpx.Client
) -> None:
    faulty.switch.heal()
    remote.configure(
        variants=[{"name": "main", "backend": "there"}],
        backends={"there": {"kind": "open-inference-http", "options": {"url": faulty.url}}},
        breaker={"min_calls": 2, "open_s": 0.5, "window_s": 5},
        fallback=[STATIC],
    )
    assert until(lambda: remote.ask(api).json()["model"]["backend"] == "there", IN_FORCE_S + 2)
    sleep(IN_FORCE_S)
    faulty.switch.set(Fault("status", status=500))
    reasons: list[str] = []

    def opened() -> bool:
        answer = remote.ask(api)
        assert (answer.status_code, answer.json()["predictions"]) == (200, [[-1.0, -1.0]])
        kind, _, reason = answer.headers["x-sluice-fallback"].partition("; reason=")
        assert (kind, answer.json()["model"]["backend"]) == ("static", "static")
        reasons.append(reason)
        return reason == "circuit_open"

    assert until(opened)
    assert reasons[0] == "backend_error"
    assert remote.ask(api).headers["x-sluice-fallback"] == "static; reason=circuit_open"
    faulty.switch.heal()
    assert until(lambda: "x-sluice-fallback" not in remote.ask(api).headers)
    answer = remote.ask(api)
    assert (answer.json()["model"]["backend"], answer.json()["predictions"]) == ("there", [[2.0, 3.0]])


def test_a_hanging_backend_keeps_nobody_waiting(remote: Published, faulty: Faulty, api: httpx.Client) -> None:
    faulty.switch.heal()
    remote.configure(
        variants=[{"name": "over-grpc", "backend": "there"}],
        backends={"there": {"kind": "open-inference-grpc", "options": {"target": faulty.grpc_target}}},
        breaker={"enabled": False},
        timeout_ms=3000,
    )
    assert remote.settles(api, "over-grpc", calls=4)
    sleep(IN_FORCE_S)  # in the environments that were not asked, too
    faulty.switch.set(Fault("hang"))
    missed = remote.ask(api, {"X-Sluice-Deadline-Ms": "400"})
    assert (missed.status_code, missed.json()["code"]) == (422, "deadline_missed")
    late = remote.ask(api)
    assert (late.status_code, late.json().get("code")) == (504, "backend_timeout"), late.text
    faulty.switch.heal()
    # Far below what the server would take by itself, which is a minute; how exact it is `make faults` tells.
    assert missed.elapsed.total_seconds() < late.elapsed.total_seconds() < 10


def test_kept_answers_are_the_tenants_own(two: Published, callers: Callers) -> None:
    two.configure(variants=[{"name": "kept", "version": 2}], cache={"ttl_s": 300, "store": "dynamodb"}, sticky="none")
    first, second = callers.caller(), callers.caller()
    assert two.settles(first.client, "kept", calls=6)
    question = [7.25, 8.5]

    def status(client: httpx.Client, headers: dict[str, str] | None = None) -> tuple[str, bool, Any]:
        answer = two.ask(client, headers, instance=question)
        return answer.headers.get("cache-status", ""), "age" in answer.headers, answer.json()["predictions"]

    sleep(IN_FORCE_S)
    missed, _, values = status(first.client)
    assert "fwd=" in missed
    assert "hit" not in missed
    hit, has_age, again = status(first.client)
    assert "hit" in hit
    assert has_age
    assert again == values == [[9.25, 10.5]]
    assert "hit" not in status(second.client)[0]
    assert "hit" in status(second.client)[0]
    assert "hit" not in status(first.client, {"Cache-Control": "no-cache"})[0]


def test_features_by_the_command_complete_a_request(
    sluice: Sluice, callers: Callers, tmp_path: Path, admin: httpx.Client
) -> None:
    name = "scores-e2e"
    inputs = [tensor("x", DType.FP32, [-1, 2], features=["amount", "age"])]
    features = {
        "entity": "customer_id",
        "sets": [{"name": "customer", "input": "x", "fields": [{"feature": "age", "default": 40.0}]}],
    }
    document = manifest(name, 1, inputs, [tensor("y", DType.FP32, [-1, 2])], features=features)
    publish_to(sluice)(write_package(tmp_path / name, add_model(1.0), document))
    caller = callers.caller()
    done = sluice.run("features", "put", "--set", "customer", "--tenant", caller.tenant, "c-1", "age=30")
    assert done.returncode == 0, done.stderr
    path, body = f"/v1/models/{name}/predict", b'{"instances": [{"x": {"amount": 9.5}, "customer_id": "c-1"}]}'
    assert until(lambda: caller.predict(path=path, body=body).status_code == 200)
    answer = caller.predict(path=path, body=body)
    assert answer.json()["predictions"] == [[10.5, 31.0]]
    (line,) = lines(sluice, "PredictFunction", answer.headers["x-request-id"])
    assert line["features"]
    # What one tenant stored is not there for another one: the default stands in.
    assert callers.caller().predict(path=path, body=body).json()["predictions"] == [[10.5, 41.0]]


def test_a_pipeline_of_published_models_is_one_model(
    sluice: Sluice, admin: httpx.Client, api: httpx.Client, tmp_path: Path
) -> None:
    first = publish_adding(sluice, admin, tmp_path, 1)
    second = publish_adding(sluice, admin, tmp_path, 1)
    steps = [
        step(first.name, {"x": "numbers"}, name="first"),
        step(second.name, {"x": "first.y"}, name="second"),
    ]
    flow = f"flow-{first.name}"
    publish_to(sluice)(write_pipeline(tmp_path / flow, pipeline_document(steps, {"sum": "second.y"}, flow)))
    made = Published(flow, admin)
    assert until(lambda: made.ask(api).status_code == 200)
    assert made.ask(api, instance=[1.0, 5.0]).json()["predictions"] == [[3.0, 7.0]]


def test_a_job_where_no_answer_has_time(sluice: Sluice, remote: Published, callers: Callers) -> None:
    endpoint = sluice.local["outputs"]["AsyncEndpointName"]
    remote.configure(
        variants=[{"name": "later", "backend": "queue"}],
        backends={"queue": {"kind": "sagemaker-async", "options": {"endpoint": endpoint}}},
    )
    caller = callers.caller(scopes=["predict", "jobs"])
    assert until(lambda: remote.ask(caller.client, {"Prefer": "respond-async"}).status_code == 202, IN_FORCE_S + 2)
    accepted = remote.ask(caller.client, {"Prefer": "respond-async"}, instance=[3.0, 4.0])
    assert (accepted.status_code, accepted.headers["preference-applied"]) == (202, "respond-async")
    path = accepted.headers["location"]
    document: dict[str, Any] = {}

    def ended() -> bool:
        document.update(caller.client.get(path).json())
        return str(document["state"]) not in {"queued", "running"}

    assert until(ended), document
    assert document["state"] == "succeeded", document
    assert document["result"]["document"]["predictions"] == [[4.0, 5.0]]
    # A job is its tenant's.
    stranger = callers.caller(scopes=["predict", "jobs"]).client.get(path)
    assert (stranger.status_code, stranger.json()["code"]) == (404, "job_not_found")


def test_the_commands_change_what_answers(sluice: Sluice, two: Published, api: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "endpoint.yaml").write_text(
        f"endpoint: {two.name}\nvariants:\n- {{name: main, version: 1}}\n- {{name: next, version: 2, weight: 0}}\n"
    )
    shown = sluice.run("apply", "-f", str(tmp_path), "--dry-run")
    assert (shown.returncode, "Plan: " in shown.stdout) == (0, True), shown.stderr
    for arguments in (("apply", "-f", str(tmp_path), "--yes"), ("traffic", two.name, "2=100%", "--yes")):
        done = sluice.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    assert two.settles(api, "next")
    revision = sluice.json("endpoints", "show", two.name)["revision"]
    done = sluice.run("endpoints", "rollback", two.name, "--to", str(revision - 1), "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert two.settles(api, "main")
