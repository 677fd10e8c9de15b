"""One network under a deadline, on a clock that only the network moves."""

from __future__ import annotations

import math
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.networks.anytime_tools import FakeClock, Network

from loss_balance.anytime import calibrate, predict, ready

steps = st.lists(st.integers(1, 9), min_size=1, max_size=6)
deadlines = st.integers(-3, 40)


def costs_of(steps):
    return np.cumsum(steps).tolist()


@given(steps, deadlines)
def test_the_answer_is_the_latest_that_is_ready_by_the_deadline(steps, deadline):
    clock, costs = FakeClock(), costs_of(steps)
    got = predict(Network(clock, costs).anytime(None), deadline, clock=clock)
    in_time = [k for k, cost in enumerate(costs) if cost <= deadline]
    expected = in_time[-1] if in_time else 0
    assert (got.value, got.exit, got.elapsed) == (("net", expected), expected, costs[expected])
    assert got.late == (not in_time)
    assert got.stopped == ("finished" if deadline > costs[-1] else "deadline")


@given(steps, deadlines)
def test_the_call_returns_by_the_deadline_plus_one_exit(steps, deadline):
    clock, costs = FakeClock(0), costs_of(steps)
    net = Network(clock, costs)
    predict(net.anytime(None), deadline, clock=clock)
    overshot = clock.now - max(deadline, 0)
    assert overshot <= steps[net.computed - 1]
    assert net.closed == 1


@given(steps, deadlines)
def test_with_expected_times_no_exit_overruns_but_the_first(steps, deadline):
    clock, costs = FakeClock(0), costs_of(steps)
    net = Network(clock, costs)
    got = predict(net.anytime(None), deadline, clock=clock, expected_times=costs)
    assert clock.now == max([costs[0], *(cost for cost in costs if cost <= deadline)])
    assert net.computed == got.exit + 1  # nothing in vain


def test_expected_times_follow_a_network_that_is_slow_today():
    clock = FakeClock(0)
    net = Network(clock, [3, 6, 9])
    got = predict(net.anytime(None), 6, clock=clock, expected_times=[1, 4, 7])
    assert (got.exit, clock.now) == (1, 6)
    net = Network(clock, [4, 7])
    assert predict(net.anytime(None), 6, clock=clock, expected_times=[1, 4]).exit == 0
    assert net.computed == 1


def test_an_exit_without_an_expected_time_is_tried():
    clock = FakeClock()
    assert predict(Network(clock, [1, 9]).anytime(None), 5, None, clock, expected_times=[1])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), deadlines)
def test_with_errors_the_answer_is_never_worse_than_an_earlier_one(errors, deadline):
    clock = FakeClock()
    net = Network(clock, range(1, len(errors) + 1))
    got = predict(net.anytime(None), deadline, clock=clock, errors=errors)
    seen = errors[: max(deadline, 1)]
    assert got.exit == seen.index(min(seen))


def test_exits_without_an_error_are_not_computed():
    net = Network(FakeClock(), [1, 2, 3])
    got = predict(net.anytime(None), errors=[0.5, 0.4])
    assert (got.exit, got.stopped, net.computed) == (1, "finished", 2)


def test_more_errors_than_exits_is_reported_beside_the_answer():
    got = predict(iter("ab"), errors=[0.5, 0.4, 0.3])
    assert (got.value, got.stopped) == ("b", "failed")
    assert "errors must be those of the network's exits, got 3 for 2" in str(got.failure)


@pytest.mark.parametrize(("limit", "exit_", "stopped"), [(2, 1, "max_exits"), (9, 2, "finished")])
def test_no_more_exits_than_asked_for(limit, exit_, stopped):
    net = Network(FakeClock(), [1, 2, 3])
    got = predict(net.anytime(None), max_exits=limit)
    assert (got.exit, got.stopped, net.computed) == (exit_, stopped, exit_ + 1)
    assert net.closed == 1


def test_ready_at_the_deadline_is_in_time():
    clock = FakeClock()
    got = predict(Network(clock, [1, 2, 3]).anytime(None), 2, clock=clock)
    assert (got.exit, got.late, got.stopped) == (1, False, "deadline")


def test_cancelling_keeps_the_answer_so_far_and_closes():
    cancel, computing, go_on = threading.Event(), threading.Event(), threading.Event()
    closed = []

    def answers():
        try:
            yield "first"
            computing.set()
            assert go_on.wait(60)
            yield "second"
            yield "third"
        finally:
            closed.append(True)

    def other_thread():
        assert computing.wait(60)
        cancel.set()
        go_on.set()

    thread = threading.Thread(target=other_thread)
    thread.start()
    got = predict(answers(), cancel=cancel)
    thread.join()
    assert (got.value, got.stopped, closed) == ("second", "cancelled", [True])


def test_cancelled_before_the_first_exit_there_is_no_answer():
    cancel = threading.Event()
    cancel.set()
    net = Network(FakeClock(), [1])
    got = predict(net.anytime(None), cancel=cancel)
    assert (got.value, got.exit, got.stopped, net.computed) == (None, None, "cancelled", 0)


def test_a_failure_leaves_the_answer_before_it():
    net = Network(FakeClock(), [1, 2, 3], failing=2)
    got = predict(net.anytime(None))
    assert (got.value, got.stopped, net.closed) == (("net", 1), "failed", 1)
    assert isinstance(got.failure, ArithmeticError)


def test_a_failure_without_an_answer_is_raised():
    net = Network(FakeClock(), [1], failing=0)
    with pytest.raises(ArithmeticError, match="net broke"):
        predict(net.anytime(None))
    assert net.closed == 1


def test_a_failure_to_close_is_reported():
    def answers():
        try:
            yield "first"
        finally:
            raise OSError("cannot close")

    got = predict(answers(), max_exits=1)
    assert (got.value, got.stopped, str(got.failure)) == ("first", "failed", "cannot close")


def test_an_interrupt_closes_the_network_too():
    net = Network(FakeClock(), [1, 2])

    def interrupted(value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(net.anytime(None), ready=interrupted)
    assert net.closed == 1


def test_an_exit_counts_from_when_its_value_is_ready():
    """As on a GPU: handed out at once, computed later."""
    clock = FakeClock()

    class Pending:
        def block_until_ready(self):
            clock.now += 5

    got = predict((Pending() for _ in range(3)), 10, clock=clock)
    assert (got.exit, got.elapsed) == (1, 10)
    ready(np.ones(3))  # nothing to wait for
    assert calibrate(lambda x: (Pending() for _ in range(3)), None, clock=clock) == (5, 10, 15)


@pytest.mark.parametrize("streams", [True, False])
def test_a_torch_tensor_is_ready_once_its_device_has_caught_up(monkeypatch, streams):
    waited = []
    stream = SimpleNamespace(synchronize=lambda: waited.append("stream"))
    device = SimpleNamespace(synchronize=lambda: waited.append("device"))
    if streams:
        device.current_stream = {"gpu": stream}.get
    torch = SimpleNamespace(get_device_module={"gpu": device}.get)
    monkeypatch.setitem(sys.modules, "torch", torch)

    class Gpu(str):
        type = "cuda"

    ready(SimpleNamespace(device=Gpu("gpu"), numpy=None))
    assert waited == ["stream" if streams else "device"]


def test_a_tensorflow_tensor_on_a_gpu_is_ready_once_it_was_read():
    read = []
    for place in ("CPU", "GPU"):
        device = f"/job:localhost/replica:0/task:0/device:{place}:0"
        ready(SimpleNamespace(device=device, numpy=lambda place=place: read.append(place)))
    assert read == ["GPU"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"deadline": math.nan}, "deadline must be a number of seconds or None, got nan"),
        ({"deadline": "1"}, "deadline must be a number of seconds or None, got '1'"),
        ({"max_exits": 0}, "max_exits must be a whole number of at least 1, got 0"),
        ({"expected_times": [2, 1]}, "expected_times must be above 0 and increase"),
        ({"errors": [0.1, math.nan]}, "errors must be finite numbers, got nan"),
        ({"errors": []}, "errors must have a value for each exit, got none"),
        ({"exits": iter(())}, "exits must have at least one answer, got none"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        predict(**{"exits": iter("ab"), **arguments})


# --- calibrate ---


def test_calibrated_times_are_the_quantile_of_the_runs_after_the_warm_up():
    clock = FakeClock()
    lengths = iter([100, 1, 2, 9])  # the first run compiles

    def net(x):
        step = next(lengths)
        for _ in range(2):
            clock.now += step
            yield x

    assert calibrate(net, "x", repeats=3, clock=clock) == (2, 4)
    lengths = iter([1, 2, 9])
    assert calibrate(net, "x", 3, quantile=1.0, warm_up=0, clock=clock) == (9, 18)


def test_calibrating_reports_what_does_not_work():
    clock = FakeClock()
    with pytest.raises(ArithmeticError):
        calibrate(Network(clock, [1, 2], failing=1), None, clock=clock)
    with pytest.raises(ValueError, match=r"the same exits each time, got \[0\]"):
        calibrate(lambda x: iter(()), None, clock=clock)
    counts = iter([1, 2, 1])
    with pytest.raises(ValueError, match=r"the same exits each time, got \[1, 2\]"):
        calibrate(lambda x: iter(range(next(counts))), None, 2, clock=clock)
    with pytest.raises(ValueError, match="measured times must be above 0 and increase"):
        calibrate(lambda x: iter("ab"), None, clock=clock)  # the clock stands still
    with pytest.raises(TypeError, match="an iterator of answers, one per exit, got list"):
        calibrate(lambda x: [x], None)
