"""Ensembles that run: in this thread on an exact clock, in threads, processes and elsewhere."""

from __future__ import annotations

import math
import multiprocessing
import pickle
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.networks import anytime_tools as tools
from support.networks.anytime_tools import FakeClock, Network

from loss_balance import eann
from loss_balance.anytime.driving import Countdown
from loss_balance.eann import Exit, Member, Ordinary, run
from loss_balance.eann.members import Link, work

LONG = 60.0  # seconds no test waits for unless it fails


@st.composite
def networks(draw):
    steps = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    return [Exit(int(cost), draw(st.integers(0, 9))) for cost in np.cumsum(steps)]


ensembles = st.lists(networks(), min_size=1, max_size=4)


def living(ensemble, clock, **extra):
    """The members, as networks that take as long as they cost."""
    costs = [[exit_.cost for exit_ in exits] for exits in ensemble]
    nets = [Network(clock, spent, name) for name, spent in enumerate(costs)]
    errors = [[exit_.error for exit_ in exits] for exits in ensemble]
    times = costs if extra.get("expected") else [None] * len(nets)
    return nets, [Member(*parts) for parts in zip(nets, errors, times, strict=True)]


# --- in this thread ---


@given(ensembles, st.integers(-2, 50))
def test_the_answer_is_that_of_the_schedule(ensemble, deadline):
    clock = FakeClock()
    nets, members = living(ensemble, clock)
    got = run(members, None, deadline, clock=clock)
    events = eann.schedule(ensemble)
    expected = eann.answer(events, deadline) or events[0]
    assert (got.elapsed, got.member, got.exit) == expected[:3]
    assert got.value == (got.member, got.exit)
    assert got.late == (expected.time > deadline)
    all_done = sum(net.computed for net in nets) == len(events)
    assert got.stopped == ("finished" if all_done else "deadline")
    assert [net.opened for net in nets] == [net.closed for net in nets]


@given(ensembles, st.integers(-2, 50))
def test_it_returns_by_the_deadline_plus_one_exit(ensemble, deadline):
    clock = FakeClock(0)
    nets, members = living(ensemble, clock)
    run(members, None, deadline, clock=clock)
    last = [net for net in nets if net.computed][-1]
    assert clock.now - max(deadline, 0) <= last.steps[last.computed - 1]


@given(ensembles, st.integers(-2, 50))
def test_with_expected_times_only_the_very_first_exit_can_overrun(ensemble, deadline):
    clock = FakeClock(0)
    _, members = living(ensemble, clock, expected=True)
    got = run(members, None, deadline, clock=clock)
    assert clock.now <= max(deadline, ensemble[0][0].cost)
    events = eann.schedule(ensemble)
    least = eann.answer(events, deadline) or events[0]
    assert members[got.member].errors[got.exit] <= least.error  # what is skipped makes room


def test_without_a_deadline_all_is_computed():
    clock = FakeClock()
    nets, members = living([[Exit(1, 3), Exit(2, 1)], [Exit(4, 2)]], clock)
    got = run(members, None, clock=clock)
    assert (got.member, got.exit, got.elapsed, got.stopped) == (0, 1, 2, "finished")
    assert [net.computed for net in nets] == [2, 1]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_failing_member_leaves_the_others(failing):
    clock = FakeClock()
    nets, members = living([[Exit(1, 5)], [Exit(2, 4)], [Exit(4, 3)]], clock)
    nets[failing].failing = 0
    got = run(members, None, clock=clock)
    assert got.member == (1 if failing == 2 else 2)
    assert got.stopped == "failed"
    assert isinstance(got.failure, ArithmeticError)
    assert got.failure.__notes__ == [f"in member {failing} of the ensemble"]
    assert [net.closed for net in nets] == [1, 1, 1]


def test_a_failure_late_in_a_member_keeps_its_answers():
    clock = FakeClock()
    nets, members = living([[Exit(1, 5), Exit(2, 4), Exit(3, 3)]], clock)
    nets[0].failing = 2
    got = run(members, None, clock=clock)
    assert (got.exit, str(got.failure)) == (1, "0 broke")


def test_if_the_first_member_fails_the_next_may_be_late():
    clock = FakeClock()
    nets, members = living([[Exit(1, 5)], [Exit(9, 4)], [Exit(1, 3)]], clock)
    nets[0].failing = 0
    got = run(members, None, 1, clock=clock)
    assert (got.member, got.late, got.elapsed, nets[2].computed) == (1, True, 10, 0)


def test_failures_without_an_answer_are_raised_together():
    clock = FakeClock()
    nets, members = living([[Exit(1, 5)], [Exit(2, 4)]], clock)
    nets[0].failing = nets[1].failing = 0
    with pytest.raises(ExceptionGroup, match="members 0, 1 failed") as caught:
        run(members, None, clock=clock)
    assert [str(error) for error in caught.value.exceptions] == ["0 broke", "1 broke"]


def test_an_interrupt_goes_through_and_closes():
    net = Network(FakeClock(), [1])

    def interrupted(value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([Member(net, [0.1])], None, ready=interrupted)
    assert net.closed == 1


def test_ordinary_networks_and_plain_functions_are_members():
    members = [Member(Ordinary(lambda x: x + 1), [0.5]), Member(tools.doubled, [0.4, 0.3])]
    got = run(members, 10)
    assert (got.value, got.member, got.exit) == (21, 1, 1)
    with pytest.raises(TypeError, match="an iterator of answers, one per exit, got int"):
        run([Member(lambda x: x + 1, [0.5])], 10)


def test_errors_for_exits_there_are_not_are_reported():
    got = run([Member(tools.doubled, [0.4, 0.3, 0.2])], 10)
    assert got.value == 21
    assert "errors must be those of the network's exits, got 3 for 2" in str(got.failure)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: run([], None), "members must be one or more networks, got none"),
        (lambda: Member(None, []), "errors must have a value for each exit, got none"),
        (lambda: Member(None, [math.nan]), "errors must be finite numbers, got nan"),
        (lambda: Member(None, [1, 2], [1]), "one for each of the 2 errors, got 1"),
        (lambda: Member(None, [1, 2], [2, 1]), "expected_times must be above 0 and increase"),
        (lambda: run([Member(tools.doubled, [1])], 1, math.nan), "deadline must be a number of"),
        (lambda: run([Member(tools.doubled, [1])], 1, grace=-1), r"grace must be a number in \[0"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- in threads ---


class Gates:
    """A network whose exits wait until they are let through."""

    def __init__(self, exits, clock=None):
        self.clock = clock
        self.begun = [threading.Event() for _ in range(exits)]
        self.open = [threading.Event() for _ in range(exits)]
        self.closed = threading.Event()

    def anytime(self, x):
        try:
            for k, (begun, gate) in enumerate(zip(self.begun, self.open, strict=True)):
                begun.set()
                assert gate.wait(LONG)
                yield k
        finally:
            self.closed.set()

    def let_all_through(self):
        for gate in self.open:
            gate.set()


def test_members_start_first_in_first_out_as_threads_free_up():
    nets = [Gates(1) for _ in range(4)]
    members = [Member(net, [1 / (n + 1)]) for n, net in enumerate(nets)]
    with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(1) as caller:
        result = caller.submit(run, members, None, None, pool)
        assert nets[0].begun[0].wait(LONG)
        assert nets[1].begun[0].wait(LONG)
        assert not nets[2].begun[0].is_set()
        nets[1].let_all_through()
        assert nets[2].begun[0].wait(LONG)
        assert not nets[3].begun[0].is_set()
        for net in nets:
            net.let_all_through()
        assert result.result(LONG).member == 3


def test_in_threads_it_does_not_wait_for_the_exit_that_is_late():
    first, slow, queued = Gates(1), Gates(3), Gates(1)
    first.let_all_through()
    slow.open[0].set()
    members = [Member(first, [0.5]), Member(slow, [0.4, 0.3, 0.2]), Member(queued, [0.1])]
    with ThreadPoolExecutor(1) as pool:
        got = run(members, None, 0.3, pool, grace=LONG)  # though an exit would take for ever
        assert (got.member, got.exit, got.stopped) == (1, 0, "deadline")
        assert not slow.closed.is_set()
        slow.let_all_through()
    assert slow.closed.is_set()
    assert not slow.begun[2].is_set()  # it stopped after its exit
    assert not queued.begun[0].is_set()


def test_in_threads_the_first_exit_may_be_late():
    net, clock = Gates(1), FakeClock(0)
    with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as caller:
        result = caller.submit(run, [Member(net, [0.5])], None, 0.01, pool, clock=clock)
        assert net.begun[0].wait(LONG)
        clock.now = 7.0
        time.sleep(0.1)  # in which it could wrongly give up
        net.let_all_through()
        got = result.result(LONG)
    assert (got.value, got.elapsed, got.late) == (0, 7.0, True)


def test_cancelling_from_another_thread_keeps_the_best_answer():
    net, cancel = Gates(2), threading.Event()
    net.open[0].set()
    with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as caller:
        result = caller.submit(run, [Member(net, [0.5, 0.4])], None, None, pool, cancel=cancel)
        assert net.begun[1].wait(LONG)
        cancel.set()
        got = result.result(LONG)
        assert (got.value, got.stopped, net.closed.is_set()) == (0, "cancelled", False)
        net.let_all_through()
    assert net.closed.is_set()


def test_an_interrupt_of_the_caller_stops_the_members():
    net, caller = Gates(3), threading.current_thread()
    net.open[0].set()

    def clock():
        if threading.current_thread() is caller and net.begun[1].is_set():
            raise KeyboardInterrupt
        return 0.0

    members = [Member(net, [0.5, 0.4, 0.3])]
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyboardInterrupt):
            run(members, None, 1.0, pool, clock=clock, cancel=threading.Event())
        net.let_all_through()
    assert net.closed.is_set()
    assert not net.begun[2].is_set()


def test_cancelled_before_any_answer():
    cancel = threading.Event()
    cancel.set()
    got = run([Member(tools.doubled, [0.5])], 1, cancel=cancel)
    assert (got.value, got.member, got.stopped) == (None, None, "cancelled")


def test_a_pool_that_is_shut_down_is_a_failure():
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        run([Member(tools.doubled, [0.5])], 1, executor=pool)


# --- where nothing comes back but results ---


def test_a_member_elsewhere_gives_its_best_answer_at_the_deadline():
    with tools.Elsewhere() as pool:
        members = [
            Member(tools.tripled, [0.5]),
            Member(tools.endless, [1 / n for n in range(3, 999)]),
        ]
        got = run(members, 2, 0.5, pool)
    assert (got.member, got.stopped, got.late) == (1, "deadline", False)
    assert got.value == (2, got.exit)


def test_a_member_that_starts_after_the_deadline_does_nothing():
    link = pickle.loads(pickle.dumps(Link(Countdown(4.0, already=5.0))))
    outcome = work(link, 1, Member(tools.doubled, [0.5]), 1, lambda v: None)
    assert (outcome.best, outcome.stopped) == (None, "deadline")


def test_grace_is_a_hard_limit():
    pool = tools.Hogged()
    got = run([Member(tools.doubled, [0.5])], 1, 0.01, pool, grace=0.01)
    assert pool.future.cancelled()
    assert (got.value, got.exit, got.stopped) == (None, None, "deadline")


def test_a_tensor_leaves_its_gradient_where_it_cannot_travel():
    with tools.Elsewhere() as pool:
        got = run([Member(tools.tensors, [0.5])], 1, executor=pool)
    assert (got.value.gradient, got.failure) == (False, None)
    assert run([Member(tools.tensors, [0.5])], 1).value.gradient


def test_failures_elsewhere_come_with_the_answers_before_them():
    members = [Member(tools.breaking, [0.5, 0.1]), Member(tools.stubborn, [0.4, 0.1])]
    with tools.Elsewhere() as pool:
        got = run(members, 2, executor=pool)
    assert (got.value, got.member, got.exit) == (2, 1, 0)
    assert isinstance(got.failure, ExceptionGroup)
    first, second = got.failure.exceptions
    assert isinstance(first, ArithmeticError)
    assert str(second) == "StubbornError: salt and pepper"  # its own type cannot travel


def test_a_watch_counts_on_the_way(monkeypatch):
    clock = FakeClock(0)
    countdown = Countdown(9.0, clock)
    clock.now = 5.0
    sent = pickle.dumps(countdown)
    here = time.time()
    for passed, least in ((3.0, 8.0), (-1000.0, 5.0)):  # a clock that lags costs the way only
        monkeypatch.setattr(time, "time", lambda passed=passed: here + passed)
        assert least - 0.5 <= pickle.loads(sent).elapsed() <= least + LONG
        assert pickle.loads(sent).elapsed() >= 5.0
        assert pickle.loads(sent).deadline == 9.0


@pytest.fixture(scope="module")
def processes():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(abs, range(2)))
        yield pool


def test_processes_give_the_best_answer(processes):
    members = [Member(tools.doubled, [0.5, 0.2]), Member(tools.tripled, [0.3])]
    got = run(members, np.arange(3), executor=processes)
    assert (got.member, got.exit, got.stopped, got.late) == (0, 1, "finished", False)
    np.testing.assert_array_equal(got.value, [1, 3, 5])


def test_processes_give_what_they_have_at_the_deadline(processes):
    members = [Member(tools.tripled, [2.0]), Member(tools.endless, [1 / n for n in range(1, 9999)])]
    got = run(members, 7, 1.0, processes)
    assert (got.member, got.stopped, got.late) == (1, "deadline", False)


def test_processes_report_failures(processes):
    members = [Member(tools.breaking, [0.5, 0.1]), Member(lambda x: iter([x]), [0.3])]
    got = run(members, 2, executor=processes)
    assert got.value == 2
    broken, unpicklable = got.failure.exceptions
    assert isinstance(broken, ArithmeticError)
    assert "lambda" in str(unpicklable)  # that it cannot be pickled, as each Python says it


def test_a_dying_process_leaves_the_answers_of_the_others():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        members = [Member(tools.tripled, [0.5]), Member(tools.dying, [0.1, 0.05])]
        got = run(members, 2, executor=pool)
    assert (got.value, got.member) == (6, 0)
    assert isinstance(got.failure, BrokenProcessPool)
