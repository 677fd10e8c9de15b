"""The learner of each framework, which is imported when it is asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

from loss_balance.experiments.data.sources import Dataset
from loss_balance.experiments.training.crew import ALONE, Crew
from loss_balance.experiments.training.engine import FRAMEWORKS
from loss_balance.experiments.training.learners.interface import Learner
from loss_balance.experiments.training.loop import Run

LEARNERS = {"torch": "TorchLearner", "tensorflow": "TensorFlowLearner", "jax": "JaxLearner"}


def learner(run: Run, data: Dataset, crew: Crew = ALONE) -> Learner:
    """The learner of the run's framework, which is imported here.

    Runs go side by side, so each learner keeps to one thread: more would only wait for each other.
    """
    framework = run.engine.framework
    use_one_thread(framework)
    made: Learner = getattr(_module(framework), LEARNERS[framework])(run, data, crew)
    return made


def use_one_thread(framework: str) -> None:
    """One thread for all that the framework computes in this process; call it before anything."""
    _module(framework).use_one_thread()


def _module(framework: str) -> ModuleType:
    """The learner's module; whatever the user's Keras runs on elsewhere, here it is TensorFlow."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    with _silent_libraries():
        return import_module(f"loss_balance.experiments.training.learners.{FRAMEWORKS[framework]}")


@contextlib.contextmanager
def _silent_libraries() -> Iterator[None]:
    """Drops what is written to stderr beneath Python; errors still come as exceptions.

    TensorFlow greets every process, at any log level, and would do so amid the progress bars.
    """
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
