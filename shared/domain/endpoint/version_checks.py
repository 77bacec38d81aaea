"""What of a configuration does not fit a published version."""

from shared.domain.endpoint import static_answer
from shared.domain.endpoint.config import EndpointConfig
from shared.domain.endpoint.outputs import problems_with
from shared.domain.errors import FieldError, pointer
from shared.domain.signature import Signature


def problems_with_version(config: EndpointConfig, signature: Signature) -> list[FieldError]:
    """Thresholds, labels, the response filter and static answers that do not fit, by JSON pointer."""
    problems = problems_with(config, signature)
    for place, fallback in enumerate(config.fallback):
        if fallback.kind == "static":
            where = pointer("/fallback", place, "outputs")
            problems += static_answer.problems(fallback.outputs, signature, where)
    return problems
