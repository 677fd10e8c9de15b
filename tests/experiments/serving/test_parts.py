"""Times, the queue's arithmetic and padding, each against the plain way to say it."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.experiments.serving import times

from loss_balance.experiments.serving.padding import Padded
from loss_balance.experiments.serving.times import Times, batch_sizes
from loss_balance.experiments.serving.waiting import latest_starts

DEADLINES = st.lists(st.integers(0, 60).map(lambda n: n / 4), max_size=9).map(sorted)


def cuts(number, most):
    """All ways to cut so many in order into batches."""
    if number == 0:
        yield ()
    for size in range(1, min(most, number) + 1):
        for rest in cuts(number - size, most):
            yield (size, *rest)


@given(DEADLINES, st.integers(0, 60).map(lambda n: n / 4))
def test_the_latest_start_is_the_latest_at_which_some_cut_is_in_time(deadlines, start):
    first = cache(lambda size: times(1.0, sizes=(1, 2, 3)).step(0, size))

    def kept(cut):
        now, done = start, 0
        for size in cut:
            now += first(size)
            if now > deadlines[done]:
                return False
            done += size
        return True

    (latest, *_) = latest_starts(deadlines, first, (1, 2, 3))
    assert (start <= latest) == any(map(kept, cuts(len(deadlines), 3)))


def test_expected_times_follow_what_is_seen_from_above():
    expected = Times({1: [1.0], 2: [1.5]})
    rng = np.random.default_rng(0)
    for seconds in rng.uniform(2.0, 3.0, 4000):
        expected.observe(0, 1, seconds)
    assert 2.6 < expected.step(0, 1) < 2.9  # the expectile of 0.9 is 2.75
    assert expected.step(0, 2) == expected.step(0, 1)  # never less for more


def test_one_stall_moves_the_expected_time_little():
    expected = Times({1: [1.0]})
    expected.observe(0, 1, 1000.0)
    assert expected.step(0, 1) < 2.0


@pytest.mark.parametrize("seconds", [{}, {1: [1.0], 2: [1.0, 2.0]}, {1: [math.nan]}, {1: []}])
def test_times_that_are_none_are_refused(seconds):
    with pytest.raises(ValueError, match="must"):
        Times(seconds)


def test_batch_sizes_double_up_to_the_largest():
    assert [batch_sizes(n) for n in (1, 2, 5, 8)] == [(1,), (1, 2), (1, 2, 4, 5), (1, 2, 4, 8)]


class Doubling:
    """Exit k gives each image's number times 2 ** k; keeps what sizes it began with."""

    def __init__(self):
        self.began = []

    def anytime(self, images):
        self.began.append(len(images))
        x = images
        while True:
            kept = yield x
            x = 2 * (x if kept is None else x[kept])


@given(st.integers(1, 8), st.data())
def test_a_padded_network_answers_as_the_network_does(number, data):
    inner = Doubling()
    images = np.arange(number, dtype=np.float32)[:, None]
    answers, expected = Padded(inner, (1, 2, 4, 8)).anytime(images), Doubling().anytime(images)
    kept = None
    for _ in range(4):
        logits = answers.send(kept)
        assert np.array_equal(logits, expected.send(kept))
        choices = st.lists(st.integers(0, len(logits) - 1), min_size=1, unique=True).map(sorted)
        kept = data.draw(st.one_of(st.none(), choices))
    assert inner.began in ([1], [2], [4], [8])


class Compiled:
    """Remembers each number of images that it computed an exit for, and left after it."""

    def __init__(self):
        self.seen = set()

    def anytime(self, images):
        number = len(images)
        for exit_ in range(3):
            self.seen.add((exit_, number))
            kept = yield np.zeros((number, 2))
            if kept is not None:
                self.seen.add((exit_, number, len(kept)))
                number = len(kept)


def test_a_padded_network_is_warm_for_all_that_comes():
    inner = Compiled()
    Padded(inner, (1, 2, 3)).warm_up(np.zeros((3, 1), np.float32))
    whole = {(exit_, size) for exit_ in range(3) for size in (1, 2, 3)}
    left = {(exit_, a, b) for exit_ in range(2) for a, b in [(2, 1), (3, 1), (3, 2)]}
    assert inner.seen == whole | left
