"""Networks on a clock of their own, so that times are exact, and networks for processes."""

from __future__ import annotations

import os
import pickle
import threading
import time
from concurrent.futures import Executor, Future

import numpy as np


class FakeClock:
    """Stands still unless told."""

    def __init__(self, now=100.0):
        self.now = now

    def __call__(self):
        return self.now


class Network:
    """Exit k takes until `costs[k]`; its answer is (name, k). Counts what it did."""

    def __init__(self, clock, costs, name="net", failing=None):
        self.clock = clock
        self.steps = np.diff([0, *costs]).tolist()
        self.name = name
        self.failing = failing  # the exit that raises
        self.opened = self.computed = self.closed = 0

    def anytime(self, x):
        return self._answers()

    def _answers(self):
        self.opened += 1
        try:
            for k, step in enumerate(self.steps):
                self.clock.now += step
                if k == self.failing:
                    raise ArithmeticError(f"{self.name} broke")
                self.computed += 1
                yield self.name, k
        finally:
            self.closed += 1


class StubbornError(Exception):
    """Pickles well and does not unpickle, as many exceptions with arguments of their own do."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


# --- networks that processes can import ---


def doubled(x):
    yield x * 2
    yield x * 2 + 1


def tripled(x):
    yield x * 3


class Tensor:
    """As torch's: with a gradient it does not travel."""

    def __init__(self, gradient=True):
        self.gradient = gradient

    def detach(self):
        return Tensor(gradient=False)

    def __reduce__(self):
        if self.gradient:
            raise RuntimeError("cannot serialize a tensor that requires grad")
        return Tensor, (False,)


def tensors(x):
    yield Tensor()


def breaking(x):
    yield x
    raise ArithmeticError("broke")


def stubborn(x):
    yield x
    raise StubbornError("salt", "pepper")


def dying(x):
    yield x
    os._exit(3)


def endless(x):
    """An answer at once, then one every 20 ms."""
    k = 0
    while True:
        yield x, k
        k += 1
        time.sleep(0.02)


class Elsewhere(Executor):
    """As Dask's executor: arguments and results are pickled, futures are never `running`.

    So they can always be cancelled, which throws the result away.
    """

    def __init__(self):
        self.threads = []

    def submit(self, fn, /, *args):
        future = Future()
        task = pickle.dumps((fn, args))

        def call():
            fn, args = pickle.loads(task)
            try:
                result = pickle.loads(pickle.dumps(fn(*args)))
            except Exception as error:
                future.set_exception(error)
                return
            if not future.cancelled():
                future.set_result(result)

        self.threads.append(threading.Thread(target=call))
        self.threads[-1].start()
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        for thread in self.threads:
            thread.join()


class Hogged(Executor):
    """A pool whose workers are busy with others' work for ever."""

    def submit(self, fn, /, *args):
        self.future = Future()
        return self.future
