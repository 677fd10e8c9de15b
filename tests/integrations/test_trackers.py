"""Weights & Biases and MLflow take `metrics()` as it is, whatever the losses are called."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest
from support.docs.integrations import shown

from loss_balance.backends.logged import in_one, keys
from loss_balance.backends.numpy import Balancer

ODD = (
    *("depth", "outer/inner", "a b", "L²", "mse (a)", "mse [a]", "a=b", "a:b", "a%b", "a\\b"),
    *("a\nb", "", "c//b", "e/../up", "d/..", "f/", ".", "a.b"),
)


def need(library):
    """The library, or a skip where this environment need not have it."""
    if library in os.environ.get("LOSS_BALANCE_LOOPS", "").split(","):
        return importlib.import_module(library)
    return pytest.importorskip(library)


@pytest.fixture
def odd():
    """A balancer of losses with the oddest names."""
    balance = Balancer(len(ODD), names=ODD)
    balance([float(i + 1) for i in range(len(ODD))])
    return balance


@pytest.fixture
def mlflow(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # where there is no SQLAlchemy
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    found = need("mlflow")
    found.set_tracking_uri((tmp_path / "mlruns").as_uri())
    found.set_experiment("balanced")
    return found


@pytest.fixture
def wandb(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    return need("wandb")


def test_keys_are_plain_and_distinct_and_legal_names_stay():
    found = keys(ODD, len(ODD))
    assert len(set(found)) == len(ODD)
    assert found[:4] == ODD[:4]
    assert found[-1] == "a.b"
    assert found[4:6] == ("mse _a_", "mse _a__")
    assert keys(("a", "b/c", "d.e-f_g"), 3) == ("a", "b/c", "d.e-f_g")
    assert keys(None, 2) == ("0", "1")


def test_metrics_of_several_balancers_stay_beside_their_like():
    one, other = Balancer(2, names=["a", "b/c"]), Balancer(1)
    assert in_one({"x": one.metrics()}) == pytest.approx(one.metrics(), nan_ok=True)
    found = in_one({"net.x": one.metrics(), "y": other.metrics()})
    assert {k for k in found if "weight" in k} == {
        *("loss_weight/net.x/a", "loss_weight/net.x/b/c", "loss_weight/y/0")
    }


@pytest.mark.filterwarnings("ignore")  # of the library's own
def test_mlflow_takes_every_name(mlflow, odd):
    with mlflow.start_run() as run:
        mlflow.log_metrics(odd.metrics(), step=1)
    found = mlflow.get_run(run.info.run_id).data.metrics
    assert found == pytest.approx(odd.metrics())
    assert len(found) == 3 * len(ODD)


@pytest.mark.filterwarnings("ignore")
def test_the_mlflow_block_logs_the_weights_by_step(mlflow):
    page = shown("mlflow")
    history = mlflow.MlflowClient().get_metric_history(page.run.info.run_id, "loss_weight/depth")
    assert [(m.step, m.value) for m in history] == [(0, 0.2875), (50, 0.2875)]


def written(run):
    """The bytes that Weights & Biases wrote of a run."""
    (path,) = Path(run.dir).parent.glob("*.wandb")
    return path.read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_wandb_takes_every_name(wandb, odd):
    with wandb.init(project="balanced") as run:
        run.log(odd.metrics(), step=0)
        run.log({}, step=1)
        found = dict(run.summary)
    assert {k: found[k] for k in odd.metrics()} == pytest.approx(odd.metrics())


@pytest.mark.filterwarnings("ignore")
def test_the_wandb_block_logs_the_weights_twice(wandb):
    page = shown("wandb")
    assert written(page.run).count(b"loss_weight/depth") >= 2
