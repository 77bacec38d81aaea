"""Kinds, their options, and the backends that an environment keeps."""

import socket
import subprocess
import sys
from types import MappingProxyType
from typing import Any

import pytest

from shared.adapters.backends.pool import EndpointBackends
from shared.adapters.backends.registry import KINDS, Registry
from shared.adapters.backends.resources import Resources
from shared.domain.endpoint.config import BackendChoice, EndpointConfig
from shared.domain.errors import BackendUnavailable
from shared.domain.ports import BackendKinds
from tests.fakes import FakeBackend

REGISTRY: BackendKinds = Registry(Resources(allow_loopback=True))
HTTP: dict[str, Any] = {"url": "https://models.example.com/v1"}
GRPC: dict[str, Any] = {"target": "models.example.com:8001"}


def problem(kind: str, options: dict[str, Any]) -> tuple[str, str]:
    """The one place that is wrong, and what."""
    (found,) = REGISTRY.problems(kind, options)
    return found.pointer, found.detail


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("open-inference-http", HTTP),
        ("open-inference-http", {"url": "http://[::1]:8000", "headers": {"Host": "a.b", "x-team": "blue"}}),
        ("open-inference-http", {"url": "http://localhost", "bearer_secret": "arn:aws:secretsmanager:r:1:secret:x"}),
        ("open-inference-grpc", GRPC),
        ("open-inference-grpc", {"target": "[::1]:8001", "tls": True, "authority": "m.example.com"}),
    ],
)
def test_good_options(kind: str, options: dict[str, Any]) -> None:
    assert list(REGISTRY.problems(kind, options)) == []


@pytest.mark.parametrize(
    ("options", "pointer", "words"),
    [
        ({}, "/options/url", "is missing"),
        ({**HTTP, "uri": 1}, "/options/uri", "is no option"),
        ({"url": 7}, "/options/url", "Expected `str`"),
        ({"url": "ftp://a"}, "/options/url", "matching regex"),
        ({"url": "https://user:secret@a"}, "/options/url", "credential"),
        ({"url": "https://a?b=c"}, "/options/url", "query"),
        ({"url": "https://a:port"}, "/options/url", "is no URL"),
        ({"url": "https:///v2"}, "/options/url", "no host"),
        ({**HTTP, "max_response_bytes": 0}, "/options/max_response_bytes", ">= 1"),
        ({**HTTP, "connect_timeout_ms": 60_000}, "/options/connect_timeout_ms", "<= 10000"),
        ({**HTTP, "version": "1/../../x"}, "/options/version", "matching regex"),
        ({**HTTP, "headers": {"Authorization": "Bearer x"}}, "/options/headers", "bearer_secret"),
        ({**HTTP, "headers": {"X-Api-Key": "x"}}, "/options/headers", "bearer_secret"),
        ({**HTTP, "headers": {"x-functions-key": "x"}}, "/options/headers", "bearer_secret"),
        ({**HTTP, "headers": {"Token": "x"}}, "/options/headers", "bearer_secret"),
        ({**HTTP, "headers": {"x-client-secret": "x"}}, "/options/headers", "bearer_secret"),
        ({**HTTP, "headers": {"Db-Password": "x"}}, "/options/headers", "bearer_secret"),
        ({**HTTP, "headers": {"Set-Cookie": "x"}}, "/options/headers", "bearer_secret"),
        ({**HTTP, "headers": {"x-authentik": "x"}}, "/options/headers", "bearer_secret"),
        ({**HTTP, "headers": {"X-Sluice-Tenant": "x"}}, "/options/headers", "set for each call"),
        ({**HTTP, "headers": {"Transfer-Encoding": "chunked"}}, "/options/headers", "set for each call"),
        ({**HTTP, "headers": {"a b": "x"}}, "/options/headers", "none of a header"),
        ({**HTTP, "headers": {"x": "a\r\nb: c"}}, "/options/headers", "printable"),
        ({**HTTP, "headers": {"x": 7}}, "/options/headers", "Expected `str`"),
        ({**HTTP, "headers": {f"x{n}": "1" for n in range(17)}}, "/options/headers", "length <= 16"),
        ({**HTTP, "bearer_secret": "the token itself"}, "/options/bearer_secret", "matching regex"),
        (
            {"url": "http://a", "bearer_secret": "arn:aws:secretsmanager:r:1:secret:x"},
            "/options/bearer_secret",
            "in the clear",
        ),
    ],
)
def test_bad_options_of_http(options: dict[str, Any], pointer: str, words: str) -> None:
    where, what = problem("open-inference-http", options)
    assert where == pointer
    assert words in what


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ({}, "/options/target"),
        ({"target": "https://a:1"}, "/options/target"),
        ({"target": "a"}, "/options/target"),
        ({"target": "a:70000"}, "/options/target"),
        ({"target": "unix:/run/x"}, "/options/target"),
        ({**GRPC, "headers": {"Host": "x"}}, "/options/headers"),
        ({**GRPC, "headers": {"x-bin": "x"}}, "/options/headers"),
        ({**GRPC, "headers": {"grpc-timeout": "1S"}}, "/options/headers"),
        ({**GRPC, "keepalive_ms": 1}, "/options/keepalive_ms"),
        ({**GRPC, "bearer_secret": "arn:aws:secretsmanager:r:1:secret:x"}, "/options/bearer_secret"),
    ],
)
def test_bad_options_of_grpc(options: dict[str, Any], pointer: str) -> None:
    assert problem("open-inference-grpc", options)[0] == pointer


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.170.2",
        "2852039166",
        "0xA9FEA9FE",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]",
    ],
)
@pytest.mark.parametrize("allow_loopback", [True, False])
def test_link_local_addresses_are_never_a_backends(host: str, allow_loopback: bool) -> None:
    registry = Registry(Resources(allow_loopback=allow_loopback))
    (found,) = registry.problems("open-inference-http", {"url": f"http://{host}/latest"})
    assert (found.pointer, found.detail.split()[:3]) == ("/options/url", ["is", "a", "link-local"])
    (found,) = registry.problems("open-inference-grpc", {"target": f"{host}:80"})
    assert (found.pointer, found.detail.split()[:3]) == ("/options/target", ["is", "a", "link-local"])


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "Localhost.", "a.localhost", "127.0.0.1", "127.1", "0x7f000001", "0", "[::1]", "[::]"),
        "[::ffff:127.0.0.1]",
    ],
)
def test_loopback_is_a_backends_on_a_local_stack_only(host: str) -> None:
    choices = {"open-inference-http": {"url": f"http://{host}:9001"}, "open-inference-grpc": {"target": f"{host}:9001"}}
    for kind, options in choices.items():
        assert list(Registry(Resources(allow_loopback=True)).problems(kind, options)) == []
        (found,) = Registry(Resources(allow_loopback=False)).problems(kind, options)
        assert "is a loopback address" in found.detail
        with pytest.raises(BackendUnavailable, match="cannot be made"):
            Registry(Resources(allow_loopback=False)).build(BackendChoice(kind, options))


@pytest.mark.parametrize("host", ["10.0.3.7", "172.31.0.1", "[fd12:3456::1]", "model.default.svc.cluster.local"])
def test_addresses_of_the_stacks_own_network_are_allowed(host: str) -> None:
    registry = Registry(Resources(allow_loopback=False))
    assert list(registry.problems("open-inference-http", {"url": f"http://{host}"})) == []
    assert list(registry.problems("open-inference-grpc", {"target": f"{host}:80"})) == []


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("", False),
        ("http://127.0.0.1:4566", True),
        ("http://localhost:4566", True),
        ("http://[::1]:4566", True),
        ("https://vpce-1.dynamodb.eu-central-1.vpce.amazonaws.com", False),
        ("http://10.0.0.5:4566", False),
        ("http://[", False),
    ],
)
def test_a_stack_is_local_where_its_aws_is(address: str, local: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    assert Resources().allow_loopback is local


def test_checking_options_resolves_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        monkeypatch.setattr(socket, name, lambda *arguments, **_: asked.append(arguments))
    for host in ("models.example.com", "localhost", "127.1", "10.0.0.1"):
        REGISTRY.problems("open-inference-http", {"url": f"http://{host}"})
        REGISTRY.problems("open-inference-grpc", {"target": f"{host}:1"})
    assert asked == []


def test_an_unknown_kind_is_told_which_there_are() -> None:
    pointer, detail = problem("carrier-pigeon", {})
    assert pointer == "/kind"
    assert all(kind in detail for kind in KINDS)


def test_checking_options_imports_no_client() -> None:
    """The admin API does it, in a function without these packages."""
    code = (
        "import sys\n"
        "from shared.adapters.backends.registry import KINDS, Registry\n"
        "from shared.adapters.backends.resources import Resources\n"
        "assert all(Registry(Resources()).problems(kind, {'nonsense': 1}) for kind in KINDS)\n"
        "print(sorted({'botocore', 'grpc', 'numpy', 'ssl', 'http', 'google'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_cannot_be_made_is_unavailable() -> None:
    for choice in (BackendChoice("carrier-pigeon"), BackendChoice("open-inference-http", {"url": "ftp://a"})):
        with pytest.raises(BackendUnavailable, match="cannot be made") as caught:
            Registry(Resources()).build(choice)
        assert not caught.value.retryable


class Built(FakeBackend):
    def __init__(self, choice: BackendChoice) -> None:
        super().__init__(lambda _version, inputs: dict(inputs))
        self.choice = choice
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Builder:
    def __init__(self) -> None:
        self.built: list[Built] = []

    def build(self, choice: BackendChoice) -> Built:
        self.built.append(Built(choice))
        return self.built[-1]


def config(**backends: BackendChoice) -> EndpointConfig:
    return EndpointConfig("m", backends=backends)


def choice(number: int, **more: Any) -> BackendChoice:
    return BackendChoice("open-inference-http", {"url": f"http://127.0.0.1:{number}", **more})


def test_equal_options_are_one_backend_whatever_it_is_called() -> None:
    builder = Builder()
    backends = EndpointBackends(builder, {})
    one = backends.get("a", config(a=choice(1, binary=True, headers={"x": "1", "y": "2"})))
    same = BackendChoice(
        "open-inference-http",
        MappingProxyType({"headers": {"y": "2", "x": "1"}, "binary": True, "url": "http://127.0.0.1:1"}),
        usd_per_hour=3.0,
    )
    assert backends.get("b", config(b=same)) is one
    assert backends.get("a", config(a=choice(2))) is not one
    assert len(builder.built) == 2


def test_at_most_so_many_are_kept_and_the_others_closed() -> None:
    builder = Builder()
    backends = EndpointBackends(builder, {}, max_kept=2)
    for number in (1, 2, 1, 3):
        backends.get("a", config(a=choice(number)))
    assert [built.closed for built in builder.built] == [False, True, False]
    backends.close()
    assert all(built.closed for built in builder.built)
    backends.get("a", config(a=choice(1)))
    assert len(builder.built) == 4


def test_the_stacks_own_are_made_when_they_are_needed_and_once() -> None:
    made: list[str] = []

    def make() -> FakeBackend:
        made.append("function")
        return FakeBackend(lambda _version, inputs: dict(inputs))

    backends = EndpointBackends(Builder(), {"function": make, "container": lambda: None})
    assert made == []
    # Nobody may put another one in their place.
    shadowed = config(function=choice(1), container=choice(2))
    assert backends.get("function", shadowed) is backends.get("function", config())
    assert made == ["function"]
    for name in ("container", "nothing"):
        with pytest.raises(BackendUnavailable, match=f"'{name}'"):
            backends.get(name, shadowed)
