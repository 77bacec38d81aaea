"""Event source mappings of a template as specs, refused where Lambda would refuse them.

Source: "CreateEventSourceMapping" of the Lambda API reference, and the pages on SQS, on DynamoDB and on event filtering
of its developer guide.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from infra.local.event_pattern import EventPatternError, compile_event_pattern
from infra.local.event_sources.specs import EventSourceSpec, QueueSourceSpec, StreamSourceSpec
from infra.local.intrinsics import TemplateError
from infra.local.stack import ACCOUNT_ID, REGION, FunctionSpec
from infra.local.stack_scope import ResolvedResource

TYPE: Final = "AWS::Lambda::EventSourceMapping"
_QUEUE_ARN: Final = f"arn:aws:sqs:{REGION}:{ACCOUNT_ID}:"
_TABLE_ARN: Final = f"arn:aws:dynamodb:{REGION}:{ACCOUNT_ID}:table/"
_DEFAULT_VISIBILITY_S: Final = 30
_MAX_FILTERS: Final = 10
_OF_QUEUES: Final = frozenset({"ScalingConfig"})
_OF_STREAMS: Final = frozenset(
    {
        "BisectBatchOnFunctionError",
        "DestinationConfig",
        "MaximumRecordAgeInSeconds",
        "MaximumRetryAttempts",
        "ParallelizationFactor",
        "StartingPosition",
    }
)


def load_event_sources(
    resources: Iterable[ResolvedResource], functions: Mapping[str, FunctionSpec]
) -> tuple[EventSourceSpec, ...]:
    """The mappings among `resources` that are switched on; `functions` are keyed by logical id.

    Raises `TemplateError` for what Lambda refuses, and for sources and destinations that the local runtime has not.
    """
    resources = tuple(resources)
    readers = (_Reader(resource, functions, resources) for resource in resources if resource.type == TYPE)
    return tuple(reader.spec() for reader in readers if reader.flag("Enabled", default=True))


class _Reader:
    """Reads one mapping."""

    def __init__(
        self,
        resource: ResolvedResource,
        functions: Mapping[str, FunctionSpec],
        resources: tuple[ResolvedResource, ...],
    ) -> None:
        self._name = resource.logical_id
        self._where = f"Resources.{resource.logical_id}.Properties"
        self._properties = resource.properties
        self._resources = resources
        self._function = self._find_function(functions)

    def spec(self) -> EventSourceSpec:
        arn = self._text("EventSourceArn")
        if arn.startswith(_QUEUE_ARN):
            return self._queue(arn)
        if arn.startswith(_TABLE_ARN) and "/stream/" in arn:
            return self._stream(arn)
        raise self._error("EventSourceArn", f"the local runtime polls queues and streams of tables only, not {arn}")

    def flag(self, name: str, *, default: bool = False) -> bool:
        return str(self._properties.get(name, default)).lower() == "true"

    # ------------------------------------------------------------ the two kinds
    def _queue(self, arn: str) -> QueueSourceSpec:
        self._refuse(_OF_STREAMS, "a queue")
        name = arn.removeprefix(_QUEUE_ARN)
        queue = self._resource("AWS::SQS::Queue", name)
        visibility_s = int(queue.properties.get("VisibilityTimeout", _DEFAULT_VISIBILITY_S))
        if visibility_s < self._function.timeout_s:
            raise self._error(
                "EventSourceArn",
                f"Queue visibility timeout: {visibility_s} seconds is less than Function timeout:"
                f" {self._function.timeout_s:.0f} seconds",
            )
        is_fifo = name.endswith(".fifo")
        window_s = self._number("MaximumBatchingWindowInSeconds", 0, 0, 0 if is_fifo else 300)
        batch_size = self._number("BatchSize", 10, 1, 10 if is_fifo else 10_000)
        if batch_size > 10 and not window_s:
            raise self._error("BatchSize", "more than 10 messages need a MaximumBatchingWindowInSeconds of at least 1")
        scaling = self._properties.get("ScalingConfig", {})
        return QueueSourceSpec(
            name=self._name,
            queue=name,
            queue_arn=arn,
            function=self._function.logical_id,
            batch_size=batch_size,
            window_s=window_s,
            filters=self._filters(),
            reports_failures=self._reports_failures(),
            max_concurrency=self._in_range("ScalingConfig", scaling.get("MaximumConcurrency"), None, 2, 1000),
        )

    def _stream(self, arn: str) -> StreamSourceSpec:
        self._refuse(_OF_QUEUES, "a stream")
        name = arn.removeprefix(_TABLE_ARN).partition("/")[0]
        if "StreamSpecification" not in self._resource("AWS::DynamoDB::Table", name).properties:
            raise self._error("EventSourceArn", f"the table {name} has no StreamSpecification")
        position = self._text("StartingPosition")
        if position not in {"LATEST", "TRIM_HORIZON"}:
            raise self._error("StartingPosition", f"LATEST or TRIM_HORIZON is needed here, not {position}")
        age_s = self._number("MaximumRecordAgeInSeconds", -1, -1, 604_800)
        if -1 < age_s < 60:
            raise self._error("MaximumRecordAgeInSeconds", "-1, or 60 to 604800")
        # One reader for a shard, which keeps the order that more of them keep for each key only.
        self._number("ParallelizationFactor", 1, 1, 10)
        retries = self._number("MaximumRetryAttempts", -1, -1, 10_000)
        return StreamSourceSpec(
            name=self._name,
            table=name,
            stream_arn=arn,
            function=self._function.logical_id,
            from_start=position == "TRIM_HORIZON",
            batch_size=self._number("BatchSize", 100, 1, 10_000),
            window_s=self._number("MaximumBatchingWindowInSeconds", 0, 0, 300),
            filters=self._filters(),
            reports_failures=self._reports_failures(),
            max_retries=None if retries < 0 else retries,
            max_age_s=None if age_s < 0 else age_s,
            bisects=self.flag("BisectBatchOnFunctionError"),
            on_failure_queue=self._on_failure(),
        )

    # ------------------------------------------------------------ properties
    def _find_function(self, functions: Mapping[str, FunctionSpec]) -> FunctionSpec:
        """By name or ARN; a version or an alias means the function itself here."""
        named = self._text("FunctionName")
        unqualified = ":".join(named.split(":")[:7])
        for function in functions.values():
            if unqualified in {function.name, function.arn} or named.split(":")[0] == function.name:
                return function
        raise self._error("FunctionName", f"{named} is no function of this stack")

    def _resource(self, type_: str, name: str) -> ResolvedResource:
        for resource in self._resources:
            if resource.type == type_ and resource.name == name:
                return resource
        raise self._error("EventSourceArn", f"{name} is no {type_} of this stack")

    def _filters(self) -> tuple[Mapping[str, Any], ...]:
        listed = self._properties.get("FilterCriteria", {}).get("Filters", [])
        if len(listed) > _MAX_FILTERS:
            raise self._error("FilterCriteria", f"a mapping has {_MAX_FILTERS} filters at most, not {len(listed)}")
        for entry in listed:
            try:
                compile_event_pattern(entry["Pattern"])
            except EventPatternError as error:
                raise self._error("FilterCriteria", str(error)) from error
        return tuple(json.loads(entry["Pattern"]) for entry in listed)

    def _reports_failures(self) -> bool:
        types = self._properties.get("FunctionResponseTypes", [])
        if unknown := set(types) - {"ReportBatchItemFailures"}:
            raise self._error("FunctionResponseTypes", f"there is no {', '.join(sorted(unknown))}")
        return bool(types)

    def _on_failure(self) -> str | None:
        arn = self._properties.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        if arn is None:
            return None
        if not str(arn).startswith(_QUEUE_ARN):
            raise self._error(
                "DestinationConfig", f"the local runtime tells of lost records in queues only, not in {arn}"
            )
        return str(arn).removeprefix(_QUEUE_ARN)

    def _refuse(self, names: frozenset[str], kind: str) -> None:
        if found := sorted(names & set(self._properties)):
            raise self._error(found[0], f"not for {kind}")

    def _text(self, name: str) -> str:
        value = self._properties.get(name)
        if not isinstance(value, str):
            raise self._error(name, f"text is needed here, not {value!r}")
        return value

    def _number(self, name: str, default: int, least: int, most: int) -> int:
        return self._in_range(name, self._properties.get(name), default, least, most) or 0

    def _in_range(self, name: str, value: Any, default: int | None, least: int, most: int) -> int | None:
        if value is None:
            return default
        try:
            number = int(value)
        except (TypeError, ValueError):
            number = least - 1
        if not least <= number <= most:
            raise self._error(name, f"a number from {least} to {most} is needed here, not {value!r}")
        return number

    def _error(self, name: str, message: str) -> TemplateError:
        return TemplateError(f"{self._where}.{name}: {message}.")
