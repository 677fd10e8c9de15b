"""Every recipe of docs/training-loop.md, run as printed, and what it promises."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "training-loop.md").read_text()
SNIPPETS = dict(re.findall(r"```python (.*?)\n(.*?)```", PAGE, re.DOTALL))


def library(name):
    """The library itself; skipped without it, unless this environment must have it."""
    if name in os.environ.get("LOSS_BALANCE_LOOPS", "").split(","):
        return importlib.import_module(name)
    return pytest.importorskip(name)


def run(name, names):
    exec(compile(SNIPPETS[name], f"training-loop.md: {name}", "exec"), names)
    return names


def test_every_recipe_has_a_test():
    here = Path(__file__).read_text()
    missing = [name for name in SNIPPETS if not re.search(rf'run\(\s*"{re.escape(name)}"', here)]
    assert not missing
    assert len(SNIPPETS) >= 15


@pytest.fixture
def torch_names():
    """What the page assumes, in PyTorch: twelve batches, losses that differ much."""
    torch = pytest.importorskip("torch")
    from loss_balance import AdaLoss
    from loss_balance.backends.torch import Balancer

    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = torch.nn.Linear(3, 4)
            self.heads = torch.nn.ModuleList(torch.nn.Linear(4, 1) for _ in range(2))

        def forward(self, x):
            h = self.trunk(x).tanh()
            return [head(h) for head in self.heads]

    def losses_of(net, batch):
        near, far = net(batch[0])
        y = batch[1]
        return [(near - y).square().mean(), 100 * (far - 2 * y).abs().mean()]

    x, y = torch.randn(48, 3), torch.randn(48, 1)
    dataset = torch.utils.data.TensorDataset(x, y)
    net = Net()
    return {
        "torch": torch,
        "nn": torch.nn,
        "contextlib": contextlib,
        "AdaLoss": AdaLoss,
        "Balancer": Balancer,
        "net": net,
        "losses_of": losses_of,
        "balance": Balancer(2),
        "optimizer": torch.optim.SGD(net.parameters(), lr=1e-6),
        "loader": torch.utils.data.DataLoader(dataset, batch_size=4),
        "x": x,
        "y": y,
    }


def undivided(names):
    """The averages of a balancer that sees the twelve batches four at a time, same parameters."""
    balance = names["Balancer"](2)
    losses_of, net, x, y = (names[name] for name in ("losses_of", "net", "x", "y"))
    for k in range(3):
        balance(losses_of(net, (x[16 * k : 16 * k + 16], y[16 * k : 16 * k + 16])))
    return balance.export_state()["average"]


def assert_one_update_in_four(balance, names):
    """The learning rate is tiny: the losses are those of the same parameters throughout."""
    state = balance.export_state()
    assert state["step"] == 3
    np.testing.assert_allclose(state["average"], undivided(names), rtol=1e-3)


def test_plain_accumulation(torch_names):
    assert_one_update_in_four(run("plain accumulation", torch_names)["balance"], torch_names)


def test_ddp(torch_names, tmp_path):
    dist = torch_names["torch"].distributed
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        assert_one_update_in_four(run("DDP", torch_names)["balance"], torch_names)
    finally:
        dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own, and what it imports
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_lightning(torch_names, tmp_path):
    lightning = library("lightning")
    quiet = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
    }
    torch = torch_names["torch"]
    names = torch_names | {"lightning": lightning, "quiet": quiet}
    code = SNIPPETS["Lightning"]
    assert "lr=0.01" in code
    before = [p.detach().clone() for p in torch_names["net"].parameters()]
    names = run("Lightning", names)
    assert names["module"].balance.export_state()["step"] == 3
    assert any((a != b).any() for a, b in zip(before, names["net"].parameters(), strict=True))
    assert torch.isfinite(names["module"].balance.average).all()


def test_accelerate(torch_names):
    accelerate = library("accelerate")
    names = run(
        "Accelerate", torch_names | {"Accelerator": partial(accelerate.Accelerator, cpu=True)}
    )
    assert_one_update_in_four(names["balance"], torch_names)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
def test_hugging_face_trainer(torch_names, tmp_path):
    transformers = library("transformers")
    x, y = torch_names["x"], torch_names["y"]
    quiet = {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-9,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }
    names = torch_names | {
        "Trainer": transformers.Trainer,
        "TrainingArguments": transformers.TrainingArguments,
        "dataset": [{"x": a, "y": b} for a, b in zip(x, y, strict=True)],
        "quiet": quiet,
    }
    names = run("Hugging Face Trainer", names)
    state = names["balance"].export_state()
    assert state["step"] == names["trainer"].state.global_step == 3


@pytest.fixture
def jax_names():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    import jax.numpy as jnp

    from loss_balance.backends.jax import balance, init

    def losses_of(parameters, batch):
        x, y = batch
        h = jnp.tanh(x @ parameters["w"])
        return [jnp.mean((h[:, 0] - y) ** 2), 100 * jnp.mean((h[:, 1] - 2 * y) ** 2)]

    rng = np.random.default_rng(0)
    x, y = (
        jnp.asarray(rng.normal(size=(48, 3)), "float32"),
        jnp.asarray(rng.normal(size=48), "float32"),
    )
    start = {"w": jnp.asarray(rng.normal(size=(3, 2)), "float32")}
    return {
        "jax": jax,
        "optax": optax,
        "balance": balance,
        "init": init,
        "losses_of": losses_of,
        "start": start,
        "batches": [(x[4 * k : 4 * k + 4], y[4 * k : 4 * k + 4]) for k in range(12)],
        "x": x,
        "y": y,
    }


def test_optax_multi_steps(jax_names):
    names = run("optax.MultiSteps", jax_names)
    parameters, state = names["start"], names["init"](2)
    optimizer_state = names["optimizer"].init(parameters)
    whole = names["init"](2)
    seen = parameters
    for k, batch in enumerate(names["batches"]):
        before = state.weights
        parameters, optimizer_state, state = names["step"](
            parameters, optimizer_state, state, batch
        )
        if k % 4 < 3:
            np.testing.assert_array_equal(state.weights, before)
            continue
        part = slice(4 * (k - 3), 4 * k + 4)
        losses = names["losses_of"](seen, (names["x"][part], names["y"][part]))
        _, whole = names["balance"](losses, whole, 2)
        seen = parameters
    assert state.step == 3
    np.testing.assert_allclose(state.average, whole.average, rtol=1e-5)


def test_optax_lbfgs(jax_names):
    names = run("optax.lbfgs", jax_names)
    assert names["state"].step == len(names["batches"])
    assert np.isfinite(names["state"].average).all()


def test_keras_gradient_accumulation():
    keras = pytest.importorskip("keras")
    from loss_balance.backends.tensorflow import balance_model

    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    heads = [keras.layers.Dense(1, name=name)(inputs) for name in ("near", "far")]
    x = np.random.default_rng(0).normal(size=(48, 3)).astype("float32")
    names = {
        "keras": keras,
        "balance_model": balance_model,
        "model": keras.Model(inputs, heads),
        "x": x,
        "y": [x[:, :1], 10 * x[:, 1:2]],
    }
    model = run("Keras gradient_accumulation_steps", names)["model"]
    state = model.balancer.export_state()
    assert state["step"] == int(model.optimizer.iterations) == 3
    assert (state["average"] > 0).all()


def test_absent(torch_names):
    state = run("absent", torch_names)["balance"].export_state()
    assert state["average"].tolist() == [2.0, -1.0]
    assert state["step"] == 2


def test_masked_mean(torch_names):
    torch = torch_names["torch"]
    x = torch.ones(4, 2, requires_grad=True)
    there = torch.tensor([[1.0, 0.0]] * 4)
    names = run("masked mean", torch_names | {"error": x.square(), "there": there})
    names["loss"].backward()
    assert torch.isfinite(x.grad).all()
    assert names["balance"].export_state()["average"].tolist() == [1.0, -1.0]


def test_ramp(torch_names):
    steps = 4 * len(torch_names["loader"])
    names = run("ramp", torch_names)
    plain = names["Balancer"](2)
    for _ in range(4):
        for batch in names["loader"]:
            plain(names["losses_of"](names["net"], batch))
    state = names["balance"].export_state()
    assert state["step"] == steps
    np.testing.assert_allclose(state["average"], plain.export_state()["average"], rtol=1e-3)


def test_grad_scaler(torch_names):
    state = run("GradScaler", torch_names)["balance"].export_state()
    assert state["step"] == len(torch_names["loader"])
    assert np.isfinite(state["average"]).all()


def test_gan(torch_names):
    torch, balancer = torch_names["torch"], torch_names["Balancer"]
    generator, critic = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    names = run(
        "GAN",
        torch_names
        | {
            "generator": generator,
            "critic": critic,
            "softplus": torch.nn.functional.softplus,
            "samples": list(torch.randn(5, 8, 2)),
            "balance_critic": balancer(2),
            "balance_generator": balancer(2),
            "critic_optimizer": torch.optim.SGD(critic.parameters(), 0.1),
            "generator_optimizer": torch.optim.SGD(generator.parameters(), 0.1),
        },
    )
    for name in ("balance_critic", "balance_generator"):
        assert names[name].export_state()["step"] == 5


def test_lbfgs(torch_names):
    names = run("LBFGS", torch_names)
    assert names["balance"].export_state()["step"] == len(names["loader"])
    assert not names["first"]


def test_recomputation(torch_names):
    names = run("recomputation", torch_names)
    assert names["balance"].export_state()["step"] == len(names["loader"])


def test_ema(torch_names):
    names = run("EMA", torch_names)
    model, averaged = names["model"], names["averaged"]
    assert model["balance"].export_state()["step"] == len(names["loader"])
    ours, theirs = (one["balance"].export_state() for one in (model, averaged.module))
    np.testing.assert_array_equal(ours["average"], theirs["average"])


def test_resuming(torch_names):
    names = run("resuming", torch_names)
    assert names["other"].export_state()["average"].tolist() == [0.5, 2.0]
    assert names["third"].export_state()["average"].tolist() == [2.0, 0.5, -1.0]
    with pytest.raises(ValueError, match=r"gamma was 0.05, is 0.2"):
        names["other"].import_state(names["saved"])


def test_outliers(torch_names, capsys):
    run("outliers", torch_names)
    assert float(capsys.readouterr().out) == pytest.approx((1.0 + 10.0 + 1.0) / 3)
