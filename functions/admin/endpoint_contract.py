"""What the routes of endpoint configurations say of themselves in the OpenAPI document."""

from typing import Any

from functions.admin.contract import described
from functions.admin.queries import ChangeQuery, HistoryQuery, PageQuery, PutQuery
from shared.domain import errors

_ANSWERS = ("EndpointDocument", "EndpointPlan")


def listing() -> dict[str, Any]:
    """`GET /v1/admin/endpoints`."""
    summary = "Endpoints for which something is set"
    return described("listEndpoints", summary, "Configurations, by name.", "EndpointList", query=PageQuery)


def reading() -> dict[str, Any]:
    """`GET …/{endpoint}`."""
    meaning = "The configuration in force."
    return described(
        "getEndpoint", "The configuration of an endpoint", meaning, "EndpointDocument", errors.NotFound, revised=True
    )


def replacing() -> dict[str, Any]:
    """`PUT …/{endpoint}`."""
    return described(
        "putEndpoint",
        "Configure an endpoint",
        "The configuration as it is now, or the plan of a dry run.",
        _ANSWERS,
        errors.NotFound,
        query=PutQuery,
        body="EndpointDocument",
        revised=True,
        conditional=True,
    )


def history() -> dict[str, Any]:
    """`GET …/history`."""
    return described(
        "listEndpointHistory",
        "The last revisions of an endpoint",
        "Revisions, the newest first.",
        "EndpointHistory",
        errors.NotFound,
        query=HistoryQuery,
    )


def revision() -> dict[str, Any]:
    """`GET …/history/{revision}`."""
    return described(
        "getEndpointRevision",
        "A revision of an endpoint",
        "The configuration as it was.",
        "EndpointDocument",
        errors.NotFound,
        errors.RevisionNotFound,
    )


def rollback() -> dict[str, Any]:
    """`POST …/rollback`."""
    return described(
        "rollBackEndpoint",
        "Set an endpoint back to an earlier revision",
        "The configuration as it is now, under a new revision, or the plan of a dry run.",
        _ANSWERS,
        errors.NotFound,
        errors.RevisionNotFound,
        query=ChangeQuery,
        body="RollbackRequest",
        post=True,
        revised=True,
        conditional=True,
    )


def traffic() -> dict[str, Any]:
    """`PATCH …/traffic`."""
    return described(
        "patchEndpointTraffic",
        "Split the traffic of an endpoint",
        "The configuration as it is now, or the plan of a dry run.",
        _ANSWERS,
        errors.NotFound,
        errors.VersionNotFound,
        query=ChangeQuery,
        body="TrafficRequest",
        revised=True,
        conditional=True,
    )
