"""Who is computed when, on a clock that goes on only where something computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.experiments.serving import Asked, made

from loss_balance.experiments.serving.requests import (
    Answer,
    Closing,
    Expired,
    Gone,
    QueueFull,
    Refused,
    TooLate,
)

EIGHTHS = st.integers(0, 400).map(lambda n: n / 8)  # sums of them are exact
ARRIVALS = st.lists(
    st.tuples(
        EIGHTHS,  # when
        st.one_of(EIGHTHS, st.just(math.inf)),  # deadline from then
        st.booleans(),  # streams
        st.one_of(st.none(), EIGHTHS),  # when whoever asked goes away
    ),
    max_size=40,
)
ERRORS = st.one_of(st.none(), st.permutations([0.1, 0.2, 0.3]))
STRETCHES = st.lists(st.sampled_from([0.5, 1.0, 1.0, 1.25, 3.0]), min_size=1, max_size=30)


def simulated(arrivals, goes_away=True, **options):
    """All that was asked, with the network and scheduler that it was asked of."""
    world, network, scheduler = made(**options)
    asked, lengths = [], []

    def come(number, seconds, streams, leaves):
        one = Asked(world, scheduler, number, seconds, streams)
        asked.append(one)
        one.submit()
        lengths.append(len(scheduler))
        if leaves is not None and goes_away and one.refused is None:
            world.at(world.now + leaves, lambda: scheduler.cancel(one.request))

    for number, (moment, *rest) in enumerate(arrivals):
        world.at(moment, lambda number=number, rest=rest: come(number, *rest))
    world.run(scheduler)
    assert scheduler.idle
    asked.sort(key=lambda one: one.number)
    assert len(asked) == len(arrivals)
    return asked, network, scheduler, lengths


def stretching(stretches):
    endless = iter(stretches * 1000)
    return lambda: next(endless)


@given(ARRIVALS, ERRORS, STRETCHES, st.one_of(st.none(), st.integers(1, 10)))
def test_all_that_is_taken_has_one_outcome_whatever_happens(arrivals, errors, stretches, fails_at):
    asked, network, _, _ = simulated(
        arrivals, errors=errors, stretch=stretching(stretches), fails_at=fails_at
    )
    for one in asked:
        assert len(one.outcomes) == (one.refused is None)
        assert not one.reports or one.refused is None
    assert network.open == 0


@given(ARRIVALS, STRETCHES, st.integers(1, 5))
def test_no_more_wait_than_may(arrivals, stretches, queue):
    asked, _, _, lengths = simulated(arrivals, queue=queue, stretch=stretching(stretches))
    assert max(lengths, default=0) <= queue
    if any(isinstance(one.refused, QueueFull) for one in asked):
        assert queue in lengths


@given(ARRIVALS, ERRORS)
def test_what_is_taken_is_in_time_where_exits_take_what_is_expected(arrivals, errors):
    """And who goes away makes nobody late."""
    asked, _, _, _ = simulated(arrivals, errors=errors)
    for one in asked:
        if one.refused is None and not one.request.gone and not one.request.first_chance:
            assert isinstance(one.outcome, Answer)
            assert one.outcome.at <= one.request.deadline
            assert one.returned <= one.request.deadline


@given(ARRIVALS, STRETCHES)
def test_who_had_an_answer_waits_beyond_the_deadline_for_no_more_than_one_exit(arrivals, stretches):
    asked, network, _, _ = simulated(arrivals, stretch=stretching(stretches))
    for one in asked:
        deadline = one.request.deadline
        if one.refused is None and one.reports and one.reports[0].at <= deadline < one.returned:
            assert one.outcome.at <= deadline  # and what it gets is of before
            own = [c for c in network.computed if one.number in c[1]]
            _, _, start, end = own[-1]
            assert start <= deadline
            assert one.returned == end


@given(ARRIVALS, STRETCHES)
def test_batches_begin_with_the_nearest_deadlines_of_those_that_wait(arrivals, stretches):
    asked, network, _, _ = simulated(arrivals, goes_away=False, stretch=stretching(stretches))
    begun = {}
    for exit_, numbers, start, _ in network.computed:
        if exit_ == 0:
            begun.update(dict.fromkeys(numbers, start))
    for exit_, numbers, start, _ in network.computed:
        if exit_ > 0:
            continue
        last = max(asked[number].request.deadline for number in numbers)
        for one in asked:
            waited = one.arrival < start and begun.get(one.number, -1.0) > start
            assert not waited or one.request.deadline >= last


@given(ARRIVALS, ERRORS, STRETCHES)
def test_an_answer_is_the_requests_own_and_the_best_of_those_in_time(arrivals, errors, stretches):
    asked, _, _, _ = simulated(arrivals, errors=errors, stretch=stretching(stretches))
    for one in asked:
        for report in one.reports:
            assert report.logits.tolist() == [one.number, report.exit, 0.0]
        assert [report.exit for report in one.reports] == list(range(len(one.reports)))
        if one.refused is not None or isinstance(one.outcome, Exception):
            continue
        kept = [r for r in one.reports if r.at <= one.request.deadline] or one.reports[:1]
        rank = (lambda r: -r.exit) if errors is None else (lambda r: errors[r.exit])
        assert one.outcome == min(kept, key=rank)


@given(ARRIVALS, ERRORS)
def test_without_a_deadline_all_is_computed_that_could_be_better(arrivals, errors):
    asked, _, _, _ = simulated(arrivals, goes_away=False, errors=errors)
    best = 2 if errors is None else int(np.argmin(errors))
    for one in asked:
        if one.refused is None and one.request.deadline == math.inf:
            assert one.outcome.exit == best
            assert len(one.reports) == (3 if one.request.streams else best + 1)


@given(ARRIVALS, STRETCHES)
def test_what_is_refused_costs_nothing(arrivals, stretches):
    """The same happens to the others as if it had never been asked."""
    asked, network, _, _ = simulated(arrivals, goes_away=False, stretch=stretching(stretches))
    kept = [a for a, one in zip(arrivals, asked, strict=True) if not one.refused]
    again, repeated, _, _ = simulated(kept, goes_away=False, stretch=stretching(stretches))
    assert all(one.refused is None for one in again)
    assert [c[2:] for c in network.computed] == [c[2:] for c in repeated.computed]


def test_who_is_alone_is_answered_however_near_the_deadline():
    world, _, scheduler = made()
    one, other = Asked(world, scheduler, 0, 0.0), Asked(world, scheduler, 1, 0.0)
    other.submit()
    assert type(other.refused) is TooLate
    one.request.alone = True
    one.submit()
    world.run(scheduler)
    assert one.outcome.exit == 0
    assert one.returned > one.request.deadline


def test_times_that_are_expected_too_long_do_not_lock_all_out():
    world, _, scheduler = made(steps=(1.0,), sizes=(1,))
    for _ in range(50):
        scheduler.times.observe(0, 1, 9.0)
    assert scheduler.times.step(0, 1) > 5.0
    for number in range(500):
        Asked(world, scheduler, number, 2.0).submit()
        world.run(scheduler)
    assert scheduler.times.step(0, 1) < 2.0


def test_a_batch_gives_way_to_who_would_be_late_otherwise_and_keeps_who_has_no_deadline():
    world, network, scheduler = made(steps=(1.0, 8.0, 8.0))
    patient, hurried = Asked(world, scheduler, 0), Asked(world, scheduler, 1, 30.0)
    urgent = Asked(world, scheduler, 2, 3.0)
    patient.submit()
    hurried.submit()
    world.at(0.5, urgent.submit)
    world.run(scheduler)
    assert [numbers for _, numbers, *_ in network.computed] == [(1, 0), (2,), (0,), (0,)]
    assert urgent.outcome.at == 2.125
    assert hurried.outcome.exit == 0  # it had an answer and a deadline
    assert hurried.returned == 1.125
    assert patient.outcome.exit == 2  # it went on where it was


def test_what_would_make_another_late_is_refused_and_what_fits_is_taken():
    world, _, scheduler = made(steps=(1.0,), sizes=(1,))
    for number, (seconds, taken) in enumerate([(1.0, 1), (2.0, 1), (3.0, 1), (2.5, 0), (4.0, 1)]):
        one = Asked(world, scheduler, number, seconds)
        one.submit()
        assert (one.refused is None) == bool(taken), seconds
        assert taken or type(one.refused) is TooLate


def test_who_waits_in_vain_since_an_exit_took_long_is_told_so():
    world, network, scheduler = made(stretch=stretching([20.0] + [1.0] * 20))
    first, second = Asked(world, scheduler, 0, 5.0), Asked(world, scheduler, 1, 5.0)
    first.submit()
    world.at(0.5, second.submit)
    world.run(scheduler)
    assert isinstance(second.outcome, Expired)
    assert all(1 not in numbers for _, numbers, *_ in network.computed)


def test_a_full_queue_refuses_and_a_closed_one_too_but_computes_what_it_has():
    world, _, scheduler = made(queue=2)
    taken = [Asked(world, scheduler, number) for number in range(2)]
    for one in taken:
        one.submit()
    with pytest.raises(QueueFull, match="no more than 2 requests may wait"):
        scheduler.check(math.inf)
    scheduler.close()
    with pytest.raises(Closing):
        scheduler.check(math.inf)
    world.run(scheduler)
    assert [one.outcome.exit for one in taken] == [2, 2]


def test_closed_at_once_those_who_wait_are_turned_away_and_others_have_what_there_is():
    world, network, scheduler = made(sizes=(1,))
    running, waiting = Asked(world, scheduler, 0), Asked(world, scheduler, 1)
    running.submit()
    scheduler.step()
    waiting.submit()
    scheduler.close(drop=True)
    world.run(scheduler)
    assert running.outcome.exit == 0
    assert isinstance(waiting.outcome, Closing)
    assert len(network.computed) == 1


def test_who_goes_away_while_waiting_is_not_computed():
    world, network, scheduler = made()
    one = Asked(world, scheduler, 0)
    one.submit()
    scheduler.cancel(one.request)
    world.run(scheduler)
    assert isinstance(one.outcome, Gone)
    assert network.computed == []
    assert isinstance(one.outcome, Exception)
    assert not isinstance(one.outcome, Refused)


def test_what_the_network_raises_comes_to_those_without_an_answer_and_the_next_goes_on():
    world, _, scheduler = made(fails_at=1)
    first, later = Asked(world, scheduler, 0), Asked(world, scheduler, 1)
    first.submit()
    world.run(scheduler)
    assert isinstance(first.outcome, ArithmeticError)
    later.submit()
    world.run(scheduler)
    assert later.outcome.exit == 2
    world, _, scheduler = made(fails_at=2)
    first = Asked(world, scheduler, 0)
    first.submit()
    world.run(scheduler)
    assert first.outcome.exit == 0


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"queue": 0}, "queue must be a whole number of at least 1, got 0"),
        ({"errors": [0.1]}, "errors must be one per exit, 3, got 1"),
        ({"errors": [0.1, math.nan, 0.1]}, "errors must be finite numbers, got nan"),
    ],
)
def test_bad_settings_are_refused(options, rule):
    with pytest.raises(ValueError, match=rule):
        made(**options)
