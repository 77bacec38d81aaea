"""Prometheus' metric families from plain values, with the container's prefix and bounded labels."""

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gpu_service.telemetry.measures import Histogram

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.core import HistogramMetricFamily
    from prometheus_client.samples import Sample

PREFIX = "sluice_"
_MAX_LABEL = 128

_SAMPLES_AT_ONCE = 64
_PAUSE_SECONDS = 50e-6

Values = Iterable[tuple[tuple[str, ...], float]]


class _Paced(list["Sample"]):
    """Samples whose reader lets the event loop in from time to time."""

    def __iter__(self) -> Iterator["Sample"]:
        for position, sample in enumerate(super().__iter__(), 1):
            yield sample
            if position % _SAMPLES_AT_ONCE == 0:
                pause()


def pause() -> None:
    """Let the event loop in, which would else wait for 5 ms: the interpreter's switch interval.

    Sleeping for no time would not do: this thread would have the interpreter back before the other has woken up.
    """
    time.sleep(_PAUSE_SECONDS)


def counter(name: str, text: str, labels: Sequence[str], values: Values) -> "Metric":
    """A counter; the formats add `_total` to its name."""
    from prometheus_client.core import CounterMetricFamily

    return _filled(CounterMetricFamily(PREFIX + name, text, labels=labels), values)


def gauge(name: str, text: str, labels: Sequence[str], values: Values) -> "Metric":
    """A gauge with all its values."""
    from prometheus_client.core import GaugeMetricFamily

    return _filled(GaugeMetricFamily(PREFIX + name, text, labels=labels), values)


def _filled(family: Any, values: Values) -> "Metric":
    for labels, value in values:
        family.add_metric(labels, value)
    metric: Metric = family
    metric.samples = _Paced(metric.samples)
    return metric


def histogram_family(name: str, text: str, labels: Sequence[str]) -> "HistogramMetricFamily":
    """A histogram without values yet."""
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(PREFIX + name, text, labels=labels)
    family.samples = _Paced()
    return family


def add_histogram(
    family: "HistogramMetricFamily", labels: tuple[str, ...], values: Histogram, *, always: bool = False
) -> None:
    """Add a series; one in which nothing was counted is left out, for a model that nobody asks has many."""
    buckets, count = [], 0
    for bound, n in zip((*values.bounds, float("inf")), values.counts.copy(), strict=True):
        count += n
        buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), float(count)))
    if count or always:
        family.add_metric(labels, buckets, values.sum)


def label(text: str) -> str:
    """A label's value: valid UTF-8 (a folder's name need not be), and bounded without two becoming one."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) <= _MAX_LABEL:
        return text
    return f"{text[: _MAX_LABEL - 9]}~{hashlib.sha256(text.encode('utf-8')).hexdigest()[:8]}"
