"""Webhooks: signatures, the schedule, ids, bodies, and where they may go."""

import json
import re
from dataclasses import replace
from ipaddress import ip_address

import pytest

from shared.domain.webhook_address import ForbiddenAddress, problem_with, target_of
from shared.domain.webhook_events import job_payload
from shared.domain.webhook_signature import headers, new_secret, secret_of, secret_text, signature, verified
from shared.domain.webhooks import (
    DELIVERY_ID,
    JITTER,
    MAX_ASKED_S,
    MAX_ATTEMPTS,
    MAX_PAUSE_S,
    SCHEDULE_S,
    TEST_EVENT,
    FinishedJob,
    SigningSecrets,
    attempts_of,
    delivery_id_of,
    new_delivery_id,
    new_webhook_id,
    pause_s,
)

JOB = FinishedJob(
    job_id="0" * 32,
    kind="prediction",
    tenant="acme",
    model="tumor",
    state="succeeded",
    created_at=1_800_000_000.0,
    finished_at=1_800_000_012.345,
)
# Source: the test suite of the reference libraries of Standard Webhooks (Apache-2.0).
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = "msg_p5jXN8AQM9LWM0D4loKWxJek"
BODY = b'{"test": 2432232314}'
SENT = 1_614_265_330
QUEUE_KEEPS_S = 345_600  # as template.yaml has it for WebhooksQueue
EXPECTED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_signature_is_that_of_the_reference_libraries() -> None:
    assert signature(secret_of(SECRET), MESSAGE, SENT, BODY) == EXPECTED
    assert secret_of(SECRET) == secret_of(SECRET.removeprefix("whsec_"))
    assert secret_text(secret_of(SECRET)) == SECRET


def test_secrets_are_of_the_form_and_length_that_the_specification_has() -> None:
    made = {new_secret() for _ in range(10)}
    assert len(made) == 10
    assert all(24 <= len(secret) <= 64 and secret_of(secret_text(secret)) == secret for secret in made)
    assert repr(made.copy().pop()) not in repr(SigningSecrets(made.pop()))
    with pytest.raises(ValueError, match="empty"):
        signature(b"", MESSAGE, SENT, BODY)


def test_while_a_secret_is_rotated_both_sign() -> None:
    old, new = new_secret(), new_secret()
    secrets = SigningSecrets(new, old, previous_until=1000.0)
    assert secrets.at(999.9) == (new, old)
    assert secrets.at(1000.0) == (new,)
    given = headers(secrets.at(999.0), MESSAGE, SENT, BODY)
    assert given["webhook-signature"].count("v1,") == 2
    assert verified(old, given, BODY, SENT)
    assert verified(new, given, BODY, SENT)
    assert not verified(new_secret(), given, BODY, SENT)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "msg_other"},
        {"webhook-id": ""},
        {"webhook-timestamp": str(SENT + 1)},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": "٣"},
        {"webhook-timestamp": "9" * 400},
        {"webhook-signature": ""},
        {"webhook-signature": EXPECTED.replace("v1,", "v1a,")},
        {"webhook-signature": EXPECTED[:-2]},
    ],
)
def test_what_is_not_as_it_was_signed_is_not_verified(change: dict[str, str]) -> None:
    secret = secret_of(SECRET)
    given = headers((secret,), MESSAGE, SENT, BODY)
    assert verified(secret, given, BODY, SENT + 299)
    assert not verified(secret, given, BODY + b" ", SENT)
    assert not verified(secret, given, BODY, SENT + 301)
    assert not verified(secret, given, BODY, SENT - 301)
    assert not verified(secret, {**given, **change}, BODY, SENT)


def test_ten_attempts_take_a_day_and_no_pause_is_too_long_for_a_queue() -> None:
    assert MAX_ATTEMPTS == 10
    assert sum(SCHEDULE_S) == 86_400
    assert list(SCHEDULE_S) == sorted(SCHEDULE_S)
    for tries, planned in enumerate(SCHEDULE_S, 1):
        assert pause_s(tries, 0.5) == planned
        assert pause_s(tries, 0.0) == pytest.approx(planned * (1 - JITTER))
        assert pause_s(tries, 1.0) <= MAX_PAUSE_S < 43_200
    assert attempts_of("job.failed") == 10
    assert attempts_of(TEST_EVENT) == 1


def test_a_receiver_may_ask_for_a_longer_pause_and_not_for_a_shorter() -> None:
    assert pause_s(1, 0.5, retry_after_s=120.0) == 120.0
    assert pause_s(9, 0.5, retry_after_s=1.0) == SCHEDULE_S[-1]
    assert pause_s(1, 0.5, retry_after_s=1e9) == MAX_ASKED_S
    # SQS forgets a message four days after it was sent, hidden or not: the last attempt comes before that.
    longest = sum(pause_s(tries, 1.0, retry_after_s=1e9) for tries in range(1, MAX_ATTEMPTS))
    assert longest < QUEUE_KEEPS_S - 3600


def test_an_event_has_one_id_and_another_run_of_the_job_another() -> None:
    first = delivery_id_of(JOB)
    assert first == delivery_id_of(replace(JOB, rows_done=7))
    others = {
        delivery_id_of(replace(JOB, finished_at=JOB.finished_at + 1)),
        delivery_id_of(replace(JOB, state="failed")),
        delivery_id_of(replace(JOB, job_id="1" * 32)),
    }
    assert len({first, *others}) == 4
    assert all(re.fullmatch(DELIVERY_ID, each) for each in (first, *others, new_delivery_id(1.8e9)))
    assert new_delivery_id(1_800_000_000.0) < delivery_id_of(JOB) < new_delivery_id(1_800_000_020.0)
    assert new_webhook_id(1.0) < new_webhook_id(2.0)


def test_a_body_tells_what_ended_and_where_more_is_found() -> None:
    done = replace(JOB, started_at=1_800_000_001.0, version=3, variant="main", backend="function", rows_total=4)
    told = json.loads(job_payload(replace(done, rows_done=4)))
    assert told == {
        "type": "job.succeeded",
        "timestamp": "2027-01-15T08:00:12.345Z",
        "data": {
            "job_id": "0" * 32,
            "kind": "prediction",
            "model": {"name": "tumor", "version": 3, "variant": "main", "backend": "function"},
            "state": "succeeded",
            "created_at": "2027-01-15T08:00:00.000Z",
            "started_at": "2027-01-15T08:00:01.000Z",
            "finished_at": "2027-01-15T08:00:12.345Z",
            "progress": {"rows_done": 4, "rows_total": 4},
            "problem": None,
            "links": {"job": f"/v1/jobs/{'0' * 32}", "result": f"/v1/jobs/{'0' * 32}/result"},
        },
    }
    failed = json.loads(job_payload(replace(JOB, kind="batch", state="failed", code="too_many_errors")))
    assert failed["type"] == "batch.failed"
    assert failed["data"]["problem"] == {"code": "too_many_errors"}
    assert failed["data"]["links"] == {"job": f"/v1/jobs/{'0' * 32}"}
    assert failed["data"]["progress"] is None


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://example.com", "example.com", 443, "/"),
        ("https://Hooks.Example.com:8443/a/b?x=1&y=%20", "hooks.example.com", 8443, "/a/b?x=1&y=%20"),
        ("https://example.com?x", "example.com", 443, "/?x"),
        ("https://93.184.215.14/hook", "93.184.215.14", 443, "/hook"),
        ("https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:1024/", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", 1024, "/"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443, "/"),
    ],
)
def test_addresses_that_may_be_webhooks(url: str, host: str, port: int, path: str) -> None:
    target = target_of(url)
    assert (target.tls, target.host, target.port, target.path) == (True, host, port, path)
    assert target.authority.startswith("[" if ":" in host else host)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "https:example.com",
        "https:///path",
        "//example.com",
        "example.com",
        "",
        "https://user@example.com/",
        "https://user:pass@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com\\@127.0.0.1/",
        "https://example.com/#part",
        "https://example.com/a b",
        "https://example.com/\r\nX-Injected: 1",
        "https://example.com/ü",
        "https://bücher.example/",
        "https://127。0。0。1/",
        "https://１２７.0.0.1/",
        "https://example.com:0/",
        "https://example.com:22/",
        "https://example.com:80/",
        "https://example.com:65536/",
        "https://example.com:/",
        "https://example.com./",
        "https://-a.example.com/",
        "https://a..example.com/",
        f"https://{'a' * 64}.example.com/",
        f"https://example.com/{'a' * 2048}",
        "https://localhost/",
        "https://LOCALHOST:8443/",
        "https://api.localhost/",
        "https://intranet/",
        "https://printer.local/",
        "https://ip-10-0-0-1.ec2.internal/",
        "https://metadata.google.internal/",
        "https://router.home.arpa/",
        # Every way to write 127.0.0.1 or 169.254.169.254 that some resolver takes.
        "https://127.0.0.1/",
        "https://127.1/",
        "https://127.0.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://017700000001/",
        "https://0/",
        "https://169.254.169.254/latest/meta-data/",
        "https://0xa9fea9fe/",
        "https://2852039166/",
        "https://[::1]/",
        "https://[::]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:a9fe:a9fe]/",
        "https://[fe80::1%25eth0]/",
        "https://[fd00:ec2::254]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[1.2.3.4]/x]",
        "https://[:::]/",
    ],
)
def test_addresses_that_may_not(url: str) -> None:
    for loopback in (False, True):
        if loopback and url.startswith(("https://127.0.0.1/", "https://[::1]/")):
            continue
        with pytest.raises(ForbiddenAddress):
            target_of(url, allow_loopback=loopback)


FORBIDDEN = (
    "0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.8.9.10 "
    "169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.9 192.0.2.7 192.88.99.1 "
    "192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1 "
    "255.255.255.255 :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1 "
    "64:ff9b::127.0.0.1 64:ff9b::8.8.8.8 64:ff9b:1::a00:1 100::1 2001::1 "
    "2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: "
    "2002:a9fe:a9fe:: 3fff::1 4000::1 5f00::1 fc00::1 fd00:ec2::254 fd12:3456::1 fe80::1 fec0::1 ff02::1 "
)


@pytest.mark.parametrize("address", FORBIDDEN.split())
def test_no_address_but_public_ones(address: str) -> None:
    assert problem_with(ip_address(address))
    assert bool(problem_with(ip_address(address), allow_loopback=True)) == (address not in {"127.0.0.1", "::1"})


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"])
def test_public_addresses(address: str) -> None:
    assert problem_with(ip_address(address)) == ""


def test_the_local_runtime_may_have_receivers_of_its_own() -> None:
    for url in ("http://127.0.0.1:8090/hook", "https://127.0.0.1:8090/", "http://[::1]:9/", "http://127.0.0.1/"):
        assert target_of(url, allow_loopback=True)
        with pytest.raises(ForbiddenAddress):
            target_of(url)
    for url in ("http://127.0.0.2/", "http://localhost/", "http://10.0.0.1/", "http://0.0.0.0/", "http://127.0.0.1:0/"):
        with pytest.raises(ForbiddenAddress):
            target_of(url, allow_loopback=True)
