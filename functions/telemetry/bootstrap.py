"""Composition root of telemetry."""

import logging
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

from botocore.session import Session

from functions.telemetry.log_event import read_event
from functions.telemetry.settings import Settings
from shared.adapters.aws import client
from shared.adapters.dynamodb_audit import DynamoDBAuditLedger
from shared.adapters.s3_anchors import S3Anchors
from shared.domain.audit import Segment
from shared.domain.errors import SluiceError
from shared.domain.settings import load
from shared.usecases.anchor_heads import AnchorHeads
from shared.usecases.record_lines import Recorded, RecordLines
from shared.web.logs import configure

Handler = Callable[[Mapping[str, Any], Any], None]
Anchor = Callable[[Segment], bool]
"""Anchors a segment if it is time to; raises SluiceError."""


def build(environ: Mapping[str, str]) -> Handler:
    """The handler for an environment; SettingsError names what is wrong with it."""
    settings = load(Settings, environ)
    log = configure(settings.service, settings.log_level)
    session = Session()
    connect_s, read_s = settings.connect_timeout_s, settings.read_timeout_s
    dynamodb = client("dynamodb", session=session, connect_timeout=connect_s, read_timeout=read_s)
    s3 = client("s3", session=session, connect_timeout=connect_s, read_timeout=read_s)
    ledger = DynamoDBAuditLedger(dynamodb, settings.audit_table, settings.usage_table, settings.traffic_table)
    anchor = AnchorHeads(S3Anchors(s3, settings.audit_bucket), settings.anchor_seconds)
    return telemetry(RecordLines(ledger, settings.audit_shards), anchor, log, settings.max_batch_bytes)


def telemetry(record: RecordLines, anchor: Anchor, log: logging.Logger, max_bytes: int) -> Handler:
    """The handler of a log subscription.

    It raises what the ledger raises, and NotALogEvent: Lambda then delivers the event again, and in the end to the
    function's failure destination. A batch of this function's own log is left alone, or each would make the next.
    """

    def handler(event: Mapping[str, Any], context: Any) -> None:
        start = perf_counter()
        batch = read_event(event, max_bytes)
        if batch is None or batch.group == getattr(context, "log_group_name", None):
            return
        done = record(batch)
        anchored = _anchored(anchor, done, log)
        fields = {
            "log_group": batch.group,
            "batch": batch.id,
            "shard": done.shard,
            "seq": done.last.seq if done.last else None,
            "records": done.records,
            "duplicates": done.duplicates,
            "skipped": done.skipped,
            "unreadable": done.unreadable,
            "overtaken": done.overtaken,
            "anchored": anchored,
            "ms": round((perf_counter() - start) * 1e3, 3),
        }
        log.log(logging.WARNING if done.unreadable else logging.INFO, "batch recorded", extra={"fields": fields})

    return handler


def _anchored(anchor: Anchor, done: Recorded, log: logging.Logger) -> bool:
    """Anchor what was written; a failure is told and does not undo it: the next batch tries again."""
    if done.last is None:
        return False
    try:
        return anchor(done.last)
    except SluiceError as error:
        fields = {"shard": done.shard, "seq": done.last.seq, "error": error.detail, "cause": repr(error.__cause__)}
        log.log(logging.ERROR, "segment not anchored", extra={"fields": fields})
        return False
