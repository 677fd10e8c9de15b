"""A scheduler in its thread: it sleeps and wakes, drains, and tells who waits whatever happens."""

from __future__ import annotations

import math
import queue
import threading

import numpy as np
import pytest
from support.experiments.serving import Gated, times

from loss_balance.experiments.serving.requests import Answer, Closing, Request
from loss_balance.experiments.serving.scheduler import Scheduler
from loss_balance.experiments.serving.service import Service


def asked(scheduler, number=1):
    """(that many requests, where their outcomes come)"""
    outcomes = queue.Queue()
    images = np.ones((number, 2, 2, 1), np.float32)
    requests = [Request(image, math.inf, outcomes.put) for image in images]
    for request in requests:
        scheduler.submit(request)
    return requests, outcomes


def broken(*_):
    raise RuntimeError("nobody thought of this")


def test_it_computes_what_comes_and_sleeps_in_between():
    service = Service(Scheduler(Gated(), times(1.0, 1.0, 1.0)))
    service.start()
    assert service.ready
    for _ in range(3):
        assert asked(service.scheduler)[1].get(timeout=60).exit == 2
    service.close()
    assert not service.ready


def test_it_ends_once_all_that_was_taken_is_computed():
    gate = threading.Event()
    service = Service(Scheduler(Gated(gate=gate), times(1.0, 1.0, 1.0)))
    service.start()
    _, outcomes = asked(service.scheduler, 9)
    closing = threading.Thread(target=service.close)
    closing.start()
    gate.set()
    closing.join()
    assert outcomes.qsize() == 9
    assert all(isinstance(outcomes.get(), Answer) for _ in range(9))
    with pytest.raises(Closing):
        asked(service.scheduler)


@pytest.mark.parametrize("where", ["observe", "warm_up"])
def test_who_waits_is_told_even_of_a_bug(where, caplog):
    gate = threading.Event()
    options = {where: broken}
    warm_up = options.pop("warm_up", lambda: None)
    scheduler = Scheduler(Gated(gate=gate), times(1.0, 1.0), **options)
    service = Service(scheduler, warm_up=lambda: gate.wait(60) and warm_up())
    service.start()
    _, outcomes = asked(scheduler, 6)
    gate.set()
    found = [outcomes.get(timeout=60) for _ in range(6)]
    assert all(isinstance(each, (Answer, RuntimeError)) for each in found)
    assert any(isinstance(each, RuntimeError) for each in found)
    service.close()
    assert outcomes.empty()
    assert not service.ready
    assert "the service raised RuntimeError" in caplog.text
