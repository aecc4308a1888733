"""Metrics in Prometheus' text format, by prometheus-client (extra `metrics`). Loaded at the first scrape.

The registry is our own: an embedding program's metrics in the global one are its own affair. Values come from
`metrics`, so no `_created` series, which would double the number of series, is ever made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from deploykit.daemons.service.metrictable import BucketCounts, MetricReading, MetricSpec

#: The media type of what `text_of` returns.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class _Readings(Collector):
    """Hands readings of one moment to prometheus-client."""

    def __init__(self, readings: Iterable[MetricReading]) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        return (_family(reading) for reading in self._readings)

    def describe(self) -> list[Metric]:
        return []


def text_of(readings: Iterable[MetricReading]) -> bytes:
    """Return readings, and the process' own figures (`process_…`), as text."""
    registry = CollectorRegistry()
    registry.register(_Readings(readings))
    ProcessCollector(registry=registry)
    return bytes(generate_latest(registry))


def _family(reading: MetricReading) -> Metric:
    spec = reading.spec
    if spec.kind == "histogram":
        return _histogram(spec, reading)
    labels = [*spec.labels]
    made: CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily
    if spec.kind == "info":
        info = InfoMetricFamily(spec.full_name.removesuffix("_info"), spec.help, labels=labels)
        for key in reading.values:
            info.add_metric((), dict(zip(labels, key, strict=True)))
        return info
    kind = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
    made = kind(spec.full_name, spec.help, labels=labels)
    for key, value in reading.values.items():
        if not isinstance(value, BucketCounts):
            made.add_metric(key, value)
    return made


def _histogram(spec: MetricSpec, reading: MetricReading) -> HistogramMetricFamily:
    made = HistogramMetricFamily(spec.full_name, spec.help, labels=[*spec.labels])
    for key, value in reading.values.items():
        if isinstance(value, BucketCounts):
            ends = (*(str(end) for end in spec.buckets), "+Inf")
            so_far, buckets = 0, []
            for end, count in zip(ends, value.counts, strict=True):
                so_far += count
                buckets.append((end, float(so_far)))
            made.add_metric(key, buckets, value.total)
    return made
