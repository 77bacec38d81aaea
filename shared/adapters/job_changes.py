"""Changes of jobs as conditional updates of their items: what is set and removed, and for which state it is meant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shared.adapters.job_items import number, problem_attributes, result_value, shard_of, text, texts
from shared.domain.jobs import KEPT_S, OVERDUE_S, START_WITHIN_S, Job, JobProblem, Outcome, Ticket

_QUEUED: Final = text("queued")
_RUNNING: Final = text("running")


@dataclass(frozen=True, slots=True)
class Change:
    """An update: what is set and removed, and under which condition. Names are replaced, many of them are reserved."""

    condition: str
    values: Mapping[str, Any] = field(default_factory=dict)  # of the condition
    sets: Mapping[str, Any] = field(default_factory=dict)
    removes: Sequence[str] = ()
    more: str = ""  # further clauses


def claimed(owner: str, now: float, lease_s: float) -> Change:
    """A queued job, or one whose lease is over, becomes the owner's."""
    return Change(
        condition="#expires_at > :now AND attribute_not_exists(#ticket)"
        " AND (#state = :queued OR (#state = :running AND #lease_until < :now))",
        values={":now": number(now), ":queued": _QUEUED, ":running": _RUNNING, ":one": number(1)},
        sets={
            "state": _RUNNING,
            "owner": text(owner),
            "lease_until": number(now + lease_s),
            "due_at": number(now + lease_s + OVERDUE_S),
        },
        more=", #started_at = if_not_exists(#started_at, :now) ADD #attempts :one",
    )


def requeued(owner: str | None, ticket: Ticket | None, problem: JobProblem | None, due_at: float, now: float) -> Change:
    """A running job waits again: its owner's, or one that waits with this ticket.

    With neither: one whose lease is over, or that waits with any.
    """
    sets = {
        "state": _QUEUED,
        "due_at": number(due_at),
        **({} if problem is None else problem_attributes(problem)),
    }
    removes = ("owner", "lease_until", "ticket")
    if owner is not None:
        return of_owner(owner, sets, removes)
    if ticket is not None:
        values = {":running": _RUNNING, ":ticket": texts(ticket)}
        return Change("#state = :running AND #ticket = :ticket", values, sets, removes)
    return Change(
        condition="#state = :running AND (attribute_exists(#ticket) OR #lease_until < :now)",
        values={":running": _RUNNING, ":now": number(now)},
        sets=sets,
        removes=removes,
    )


def finished(outcome: Outcome, at: float, owner: str | None, ticket: Ticket | None) -> Change:
    """A job that has not ended ends; `owner` and `ticket` None: whoever holds it, whatever it waits for."""
    own = ("" if owner is None else " AND #owner = :owner") + ("" if ticket is None else " AND #ticket = :ticket")
    return Change(
        condition=f"#state IN (:queued, :running){own}",
        values={
            ":queued": _QUEUED,
            ":running": _RUNNING,
            **({} if owner is None else {":owner": text(owner)}),
            **({} if ticket is None else {":ticket": texts(ticket)}),
        },
        sets={
            "state": text(outcome.state),
            "finished_at": number(at),
            **ran_members(outcome),
            **({} if outcome.result is None else {"result": result_value(outcome.result)}),
            **({} if outcome.problem is None else problem_attributes(outcome.problem)),
            **({} if outcome.batch is None else {"batch": {"B": outcome.batch}}),
        },
        removes=(
            *("owner", "lease_until", "ticket", "due_at", "due_shard"),
            # Of an attempt before, which did not end it.
            *(("problem", "problem_code") if outcome.state == "succeeded" and outcome.problem is None else ()),
        ),
    )


def postponed(job: Job, due_before: float, due_at: float) -> Change:
    """A job that is as it was read is looked at later."""
    return Change(
        condition="#due_at = :due_before AND #state = :state AND #attempts = :attempts",
        values={
            ":due_before": number(due_before),
            ":state": text(job.state),
            ":attempts": number(job.attempts),
        },
        sets={"due_at": number(due_at)},
    )


def of_owner(owner: str, sets: Mapping[str, Any], removes: Sequence[str] = ()) -> Change:
    """A change of a running job by whoever holds it."""
    values = {":running": _RUNNING, ":owner": text(owner)}
    return Change("#state = :running AND #owner = :owner", values, sets, removes)


def ran_members(outcome: Outcome) -> dict[str, Any]:
    """What a run says of itself."""
    texts_ = {"variant": outcome.variant, "backend": outcome.backend}
    counts = {
        "version": outcome.version,
        "rows_total": outcome.rows_total,
        "rows_done": outcome.rows_done or None,
        "cost_nusd": outcome.cost_nusd,
    }
    return {
        **{name: text(value) for name, value in texts_.items() if value is not None},
        **{name: number(value) for name, value in counts.items() if value is not None},
    }


def restarted(tenant: str, job_id: str, kind: str, now: float) -> Change:
    """A failed or cancelled job of this kind waits again; a batch keeps its version and the rows that are done."""
    anew = kind == "prediction"
    return Change(
        condition="#tenant = :tenant AND #kind = :kind AND #expires_at > :now AND #state IN (:failed, :cancelled)",
        values={
            ":tenant": text(tenant),
            ":kind": text(kind),
            ":now": number(now),
            ":failed": text("failed"),
            ":cancelled": text("cancelled"),
        },
        sets={
            "state": _QUEUED,
            "attempts": number(0),
            "start_by": number(now + START_WITHIN_S),
            "expires_at": number(int(now) + KEPT_S),
            "due_at": number(now + OVERDUE_S),
            "due_shard": text(shard_of(job_id)),
            **({"rows_done": number(0)} if anew else {}),
        },
        removes=(
            *("problem", "problem_code", "started_at", "finished_at"),
            *(("version", "variant", "backend", "cost_nusd") if anew else ()),
        ),
    )
