"""Pipelines and their steps: a pipeline answers while all of its steps are served, and says which one it lacks."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from gpu_service.logs import fields
from shared.domain.errors import SluiceError

if TYPE_CHECKING:
    from gpu_service.models.repository import Entry
    from gpu_service.models.served_model import ModelKey

_log = logging.getLogger(__name__)

Find = Callable[["ModelKey"], "Entry | None"]
"""What is known of a version."""


def join(entry: "Entry", find: Find) -> None:
    """Let a pipeline answer with the steps that are in memory now, or note in `lacks` why it cannot."""
    served = entry.served
    if served is None or not served.needs:
        return
    steps = {key: find(key) for key in served.needs}
    before, entry.lacks = entry.lacks, next((lack for key, step in steps.items() if (lack := _lack(key, step))), "")
    models = {key: step.served for key, step in steps.items() if step is not None and step.served is not None}
    if entry.lacks or len(models) < len(steps):
        served.part()
    else:
        try:
            served.join(models)
        except SluiceError as error:
            entry.lacks = error.detail
            if before != entry.lacks:
                _log.error("pipeline not served", extra=fields(model=entry.key.name, error=error.detail))
    if entry.lacks or before:
        entry.reason = entry.lacks


def evicted(entry: "Entry", find: Find) -> "Entry | None":
    """What is to be loaded again before an offered version can answer: itself, or a step of a pipeline."""
    if entry.evicted:
        return entry
    if entry.served is None or entry.lacks:
        return None
    steps = (find(key) for key in entry.served.needs)
    return next((step for step in steps if step is not None and step.evicted), None)


def _lack(key: "ModelKey", step: "Entry | None") -> str:
    """Why a step cannot answer, empty if it can, if need be after it is loaded again."""
    if step is not None and step.offered:
        return ""
    why = "" if step is None else f": {step.reason or 'unloaded'}"
    return f"its step {key.name} version {key.version} is not served here{why}"
