"""What `make faults` makes of answers: a wrong outcome must never look like a good one."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from benchmarks.faults.catalogue import Fault, catalogue, quick_catalogue
from benchmarks.faults.endpoints import CHANGING, FAULTY, HEALTHY, Terms
from benchmarks.faults.load import Answer
from benchmarks.faults.outcomes import Outcome, Phases, has_shown, is_calm, judge
from benchmarks.faults.questions import APART, TOLERANCE, Question
from benchmarks.faults.report import markdown

TERMS = Terms()
FAULTS = {fault.name: fault for fault in catalogue(TERMS)}
PRIMARY = Answer(
    at=0.0,
    endpoint="tumor-http",
    tenant="demo",
    deadline_ms=None,
    ms=100.0,
    server_ms=95.0,
    status=200,
    code="ok",
    fallback="",
    reason="",
    variant="main",
    verdict="right",
)


def everywhere(*, reason: str = "", seconds: float = 8.0, verdict: str = "right") -> list[Answer]:
    """Answers of all endpoints for some seconds; those of the faulty ones are stand-ins if there is a reason."""
    found = []
    for tenth in range(int(seconds * 5)):
        for endpoint in FAULTY:
            mark = "static" if reason else ""
            found.append(
                replace(PRIMARY, at=tenth / 5, endpoint=endpoint, fallback=mark, reason=reason, verdict=verdict)
            )
        found.append(replace(PRIMARY, at=tenth / 5, endpoint=HEALTHY, ms=10.0, server_ms=8.0))
        found.append(replace(PRIMARY, at=tenth / 5, endpoint=CHANGING, variant="after"))
    return found


def judged(name: str, during: Sequence[Answer], after: Sequence[Answer] | None = None) -> Outcome:
    return judge(FAULTS[name], Phases(everywhere(), during, everywhere() if after is None else after), TERMS)


def test_a_circuit_that_opens_and_closes_is_as_required() -> None:
    outcome = judged("5xx", everywhere(reason="backend_error", seconds=2) + everywhere(reason="circuit_open"))
    assert outcome.wrong == []
    assert set(outcome.opened_s) == set(FAULTY)
    assert outcome.ratio == 1.0


@pytest.mark.parametrize(
    ("outcome", "wrong"),
    [
        (judged("5xx", everywhere(reason="backend_error")), "the circuit of tumor-http did not open"),
        (judged("5xx", everywhere(reason="circuit_open"), everywhere(reason="circuit_open")), "it did not recover"),
        (judged("reset", everywhere(reason="circuit_open", verdict="wrong")), "120 answers are not those of"),
        (judged("garbage", everywhere(reason="circuit_open", verdict="unmarked")), "120 stand-ins are not marked"),
        (judged("4xx", everywhere(reason="circuit_open")), "the circuit of tumor-http opened"),
        (judged("4xx", everywhere()), "nothing stood in for tumor-http"),
        (judged("configuration fails", everywhere(reason="backend_error")), "the configuration in force was not kept"),
    ],
)
def test_what_must_not_be_is_told(outcome: Outcome, wrong: str) -> None:
    assert any(text.startswith(wrong) for text in outcome.wrong), outcome.wrong


def test_a_healthy_endpoint_that_refuses_is_wrong_and_a_slow_one_misses_its_target() -> None:
    refused = [replace(one, status=503, code="overloaded", verdict="refused") for one in everywhere()]
    assert any("the healthy endpoint refused" in text for text in judged("configuration fails", refused).wrong)
    slow = [replace(one, ms=14.0) if one.endpoint == HEALTHY else one for one in everywhere()]
    outcome = judged("configuration fails", slow)
    assert (outcome.wrong, outcome.missed) == ([], ["healthy p99 × 1.40"])


def test_a_change_that_is_late_is_wrong() -> None:
    old = [replace(one, variant="before") if one.endpoint == CHANGING else one for one in everywhere(seconds=7)]
    assert judged("stale half", everywhere() + old).wrong == []
    outcome = judged("stale half", everywhere() + old, old)
    assert outcome.wrong == ["the change was in force 6.8 s after the fault only"]
    assert judged("stale half", old).wrong == ["no environment knew of the change"]


def test_lateness_is_what_is_beyond_the_deadline_and_the_way_to_the_function() -> None:
    late = replace(PRIMARY, deadline_ms=500, ms=585.0, server_ms=560.0)
    outcome = judged("configuration fails", [*everywhere(), late])
    assert outcome.overhead_ms == 5.0
    assert outcome.late_client_ms == 80.0
    assert outcome.late_function_ms == 60.0
    assert outcome.missed == ["1 answers over 50 ms late"]


def test_calm_and_shown_look_at_every_endpoint() -> None:
    fault = FAULTS["not ready"]
    assert not is_calm(fault, [])
    assert is_calm(fault, everywhere())
    assert not is_calm(fault, everywhere(reason="circuit_open"))
    only = [replace(PRIMARY, endpoint="tumor-sagemaker", reason="circuit_open")]
    assert has_shown(fault, only)
    assert not has_shown(FAULTS["5xx"], only)


def test_each_fault_is_there_in_the_short_form_too() -> None:
    short = ", ".join(fault.name for fault in quick_catalogue(TERMS))
    assert [name for name in FAULTS if name not in short] == []
    assert all(set(fault.document(TERMS)) >= set(FAULTY.values()) for fault in quick_catalogue(TERMS))


def test_an_answer_to_another_question_is_none() -> None:
    question = Question(b"", (0.2, 0.4))

    def answer(*values: float) -> dict[str, object]:
        return {"predictions": [{"probabilities": {"malignant": value}} for value in values]}

    assert question.is_answered_by(answer(0.2 + TOLERANCE / 2, 0.4))
    assert not question.is_answered_by(answer(0.2, 0.4 + APART))
    assert not question.is_answered_by(answer(0.2))


def test_the_page_and_the_document_have_every_fault() -> None:
    outcomes = [judged(name, everywhere(reason="circuit_open")) for name in ("5xx", "not ready")]
    machine = {"date": "2026-11-21", "cores": 2, "python": "3.11", "busy": 0.1, "load": "12 s"}
    page = markdown(outcomes, machine)
    assert "| 5xx | 0, 120, 0 |" in page
    assert "- `tumor-grpc`: 40 static; circuit_open" in page
    assert json.loads(json.dumps([outcome.document() for outcome in outcomes]))[1]["fault"] == "not ready"


def test_faults_name_servers_that_there_are() -> None:
    for fault in FAULTS.values():
        assert isinstance(fault, Fault)
        assert set(fault.servers) <= set(FAULTY.values())
