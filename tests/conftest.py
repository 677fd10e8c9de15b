import importlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")  # jax reads it when it is first imported
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")  # likewise TensorFlow, when it first computes;
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")  # so that exact repetition is no luck

# Processes that tests start find `support` too.
paths = (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))

# What this environment must have: an importorskip cannot hide a broken installation.
for module in filter(None, os.environ.get("LOSS_BALANCE_REQUIRE", "").split(",")):
    importlib.import_module(module)

# No deadline: where a compiler runs, the first example is slow. Derandomised: CI repeats itself.
# Executors differ by design: every balancer inherits the contract's tests.
usual = settings(deadline=None, suppress_health_check=[HealthCheck.differing_executors])
settings.register_profile("default", usual, derandomize=True, max_examples=200)
# Every example runs several times slower in a framework; the formula itself is NumPy's matter.
settings.register_profile("frameworks", usual, derandomize=True, max_examples=12)
settings.register_profile("explore", usual, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def _no_stray_files(tmp_path, monkeypatch):
    """Tests run in a folder of their own, so that what they write cannot reach the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests of a command, or with processes, share what they make: a worker has a file of them."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            whole = "/commands/" in nodeid or "/multiprocess/" in nodeid
            return nodeid.split("::")[0] if whole else nodeid

    return Scheduler(config, log)
