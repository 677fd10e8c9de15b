"""What Prometheus may read of a service; each service has numbers of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

OUTCOMES = ("answered", "full", "too-late", "expired", "closing", "failed", "gone", "bad")
SECONDS = tuple(base * 10.0**power for power in range(-4, 2) for base in (1, 2, 5))


class Metrics:
    """Counters and histograms.

    Args:
        exits: of the network.
        largest: batch.
    """

    def __init__(self, exits: int, largest: int) -> None:
        self._registry = registry = CollectorRegistry()
        sizes = [1 << k for k in range((largest - 1).bit_length() + 1)]
        self._requests = Counter(
            "loss_balance_requests", "Requests by outcome", ["outcome"], registry=registry
        )
        self._answers = Counter(
            "loss_balance_answers", "Answers by exit, from 0", ["exit"], registry=registry
        )
        self._deadlines = Counter(
            "loss_balance_deadlines",
            "Answers to requests with a deadline: was it met",
            ["met"],
            registry=registry,
        )
        self._latency = Histogram(
            "loss_balance_answer_seconds",
            "From the whole request to its answer",
            buckets=SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "loss_balance_batch_size",
            "Requests that an exit was computed for",
            ["exit"],
            buckets=sizes,
            registry=registry,
        )
        self._queue = Gauge("loss_balance_queue_length", "Requests that wait", registry=registry)
        for outcome in OUTCOMES:
            self._requests.labels(outcome)
        for exit_ in map(str, range(exits)):
            self._answers.labels(exit_)
            self._batches.labels(exit_)
        for met in ("yes", "no"):
            self._deadlines.labels(met)

    def watch(self, waiting: Callable[[], int]) -> None:
        """`waiting` says how many requests wait, whenever somebody reads."""
        self._queue.set_function(waiting)

    def ended(self, outcome: str) -> None:
        """A request ended without an answer."""
        self._requests.labels(outcome).inc()

    def answered(self, exit_: int, seconds: float, late: bool | None) -> None:
        """A request was answered; `late` is None where it had no deadline."""
        self._requests.labels("answered").inc()
        self._answers.labels(str(exit_)).inc()
        self._latency.observe(seconds)
        if late is not None:
            self._deadlines.labels("no" if late else "yes").inc()

    def computed(self, exit_: int, batch: int, _seconds: float) -> None:
        """An exit was computed for a batch."""
        self._batches.labels(str(exit_)).observe(batch)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self._registry)
