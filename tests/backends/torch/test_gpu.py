"""PyTorch on a device: what `benchmarks/gpu.sh checks` runs, and CI runs as a stand-in on a CPU.

Skipped without a GPU, unless LOSS_BALANCE_DEVICE says which device to take.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.balancers.contract import SCHEMES

from loss_balance import AdaLoss, LinearSchedule

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
from support.balancers import torch_contract
from support.experiments.learners import DATA, batches, ignore, make
from support.networks.contract import random_batch, random_weights
from torch._dynamo.testing import CompileCounterWithBackend

from loss_balance.backends.torch import Balancer
from loss_balance.experiments.training.learners.by_framework import learner
from loss_balance.experiments.verification.small_networks import CHAINS, SPARSE
from loss_balance.reference_models.torch import (
    AnytimeNet,
    native,
)

DEVICE = os.environ.get("LOSS_BALANCE_DEVICE") or ("cuda" * torch.cuda.is_available())
if not DEVICE:
    pytest.skip("no CUDA device is at hand", allow_module_level=True)
pytestmark = [
    # Torch's own: the first call of set_sync_debug_mode, and inductor on Python 3.12 and later.
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning"),
]
needs_cuda = pytest.mark.skipif(DEVICE != "cuda", reason="needs CUDA")
with_each_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
TWO_SCHEMES = [
    AdaLoss(9),
    AdaLoss(9, gamma=LinearSchedule(1.0, 0.0, 5), final_weight=2.0, update_every=2),
]
with_two_schemes = pytest.mark.parametrize("scheme", TWO_SCHEMES, ids=["default", "options"])


@pytest.fixture(autouse=True)
def _on_the_device():
    torch.set_default_device(DEVICE)
    yield
    torch.set_default_device(None)


def moved(losses):
    """Losses in whatever container, on the device."""
    if isinstance(losses, torch.Tensor):
        return losses.to(DEVICE)
    if isinstance(losses, dict):
        return {name: moved(loss) for name, loss in losses.items()}
    return type(losses)(map(moved, losses)) if isinstance(losses, (list, tuple)) else losses


class TestOnDevice(torch_contract.TorchContract):
    """The whole contract of balancers, moved to the device as a user moves it, with `.to`."""

    @pytest.fixture(autouse=True)
    def _losses_on_the_device(self, monkeypatch):
        torch.set_default_device(None)  # what the package makes itself must find its way alone
        convert = torch_contract.convert
        monkeypatch.setattr(torch_contract, "convert", lambda *a, **k: moved(convert(*a, **k)))

    def make(self, scheme, **options):
        return super().make(scheme, **options).to(DEVICE)

    def gradient_of_square(self, balancer, x, scales):
        x = torch.tensor(x, requires_grad=True, device=DEVICE)
        balancer.train()([scale * x**2 for scale in scales]).backward()
        return x.grad.item()

    def test_it_is_on_the_device(self):
        assert {buffer.device.type for buffer in self.make(3).buffers()} == {DEVICE}


@pytest.fixture
def no_sync():
    """Any wait for the device raises."""

    def strict():
        torch.cuda.set_sync_debug_mode("error")

    yield strict
    torch.cuda.set_sync_debug_mode("default")


@needs_cuda
@with_two_schemes
@pytest.mark.parametrize(
    "form", ["list", "stacked", "absent", "masked", "numbers", "noted", "weighed"]
)
def test_no_step_after_the_first_waits_for_the_device(scheme, form, no_sync):
    balance = Balancer(scheme)
    mask, factors = torch.arange(9) > 2, torch.ones(9)

    def step():
        x = torch.rand(9, requires_grad=True)
        losses = list(x.unbind())
        if form == "stacked":
            losses = x
        elif form == "absent":
            losses[3] = None
        elif form == "numbers":
            losses[2:4] = [0, 1.5]
        options = {"mask": mask} if form == "masked" else {}
        options |= {"priorities": factors} if form == "weighed" else {}
        if form == "noted":
            balance(losses, update=False).backward()
        balance(losses, **options).backward()

    step()
    no_sync()
    for _ in range(5):
        step()


@needs_cuda
@with_each_scheme
def test_a_captured_graph_goes_on_updating_the_state(scheme):
    captured, eager = Balancer(scheme), Balancer(scheme)
    losses = torch.rand(3)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        captured(losses)
    torch.cuda.current_stream().wait_stream(side)
    eager(losses)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total = captured(losses)
    for _ in range(6):
        batch = torch.rand(3)
        losses.copy_(batch)
        graph.replay()
        torch.testing.assert_close(total, eager(batch))
    for name, value in eager.export_state().items():
        np.testing.assert_allclose(captured.export_state()[name], value, rtol=1e-6)


@needs_cuda
@pytest.mark.parametrize("micro", [2, 4])
def test_two_captured_graphs_accumulate(micro):
    """One that notes, one that updates, replayed as often as one likes."""
    captured, eager = Balancer(9), Balancer(9)
    losses = torch.rand(9)
    graphs = {}
    for update in (False, True):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            captured(losses, update=update)
        torch.cuda.current_stream().wait_stream(side)
    captured.reset()
    for update in (False, True):
        graphs[update] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graphs[update]):
            captured(losses, update=update)
    for _ in range(3):
        for k in range(micro):
            batch = torch.rand(9)
            losses.copy_(batch)
            graphs[k == micro - 1].replay()
            eager(batch, update=k == micro - 1)
    for name, value in eager.named_buffers():
        torch.testing.assert_close(getattr(captured, name), value)


def test_the_state_follows_its_model_to_the_device():
    balance = Balancer(3).cpu()
    balance(torch.tensor([1.0, 2.0, 3.0], device="cpu"))
    before = balance.export_state()
    for name, value in balance.to(DEVICE).half().export_state().items():
        np.testing.assert_array_equal(value, before[name])
    assert {buffer.device.type for buffer in balance.buffers()} == {DEVICE}


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@with_two_schemes
def test_compiled_steps_equal_eager_ones_and_compile_once(scheme, backend):
    if backend == "inductor" and DEVICE != "cuda":
        pytest.skip("needs CUDA")
    torch.compiler.reset()
    counter = CompileCounterWithBackend(backend)
    compiled, eager = Balancer(scheme), Balancer(scheme)
    step = torch.compile(compiled, fullgraph=True, backend=counter)
    for k in range(5):
        batch, mask = torch.rand(9) + 0.1, torch.arange(9) != k
        x, y = batch.clone().requires_grad_(), batch.clone().requires_grad_()
        step(x, mask=mask).backward()
        eager(y, mask=mask).backward()
        torch.testing.assert_close(x.grad, y.grad)
    assert counter.frame_count == 1
    for name, value in eager.export_state().items():
        np.testing.assert_allclose(compiled.export_state()[name], value, rtol=1e-5)


def test_a_gradient_scaler_and_autocast_leave_a_sane_state():
    net = torch.nn.Linear(4, 3)
    balance, optimizer = Balancer(3), torch.optim.SGD(net.parameters(), 0.1)
    scaler = torch.amp.GradScaler(DEVICE, init_scale=2.0**40)  # overflows: steps are skipped
    for _ in range(4):
        with torch.autocast(DEVICE, torch.bfloat16):
            losses = net(torch.rand(8, 4)).square().mean(0)
            total = balance(losses)
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    state = balance.export_state()
    assert state["step"] == 4
    assert np.isfinite(state["average"]).all()


def filled(spec):
    net = AnytimeNet(spec).eval()
    net.load_weights(random_weights(spec))
    return net.to(DEVICE)


def relative_error(found, expected):
    """The largest difference of any logit, relative to the largest logit."""
    top = max(float(x.abs().max()) for x in expected)
    return (
        max(float((a.float() - b).abs().max()) for a, b in zip(found, expected, strict=True)) / top
    )


@pytest.mark.parametrize("spec", CHAINS, ids=lambda spec: spec.name)
def test_networks_agree_in_channels_last_and_in_bfloat16(spec):
    images = native(random_batch(spec)[0]).to(DEVICE)
    with torch.no_grad():
        expected = [x.float() for x in filled(spec)(images)]
        last = filled(spec).to(memory_format=torch.channels_last)
        found = last(images.to(memory_format=torch.channels_last))
        with torch.autocast(DEVICE, torch.bfloat16):
            narrow = last(images.to(memory_format=torch.channels_last))
    assert relative_error(found, expected) < 2e-3  # TF32 convolutions on a GPU
    assert relative_error(narrow, expected) < 0.1


def test_an_epoch_of_the_learner_is_that_on_a_cpu():
    """Within the rounding of a few small steps."""
    torch.set_default_device(None)
    ends = {}
    for device in ("cpu", DEVICE):
        run = make("torch")
        trained = learner(replace(run, engine=replace(run.engine, device=device)), DATA)
        trained.train_epoch(batches(4), 0.05, ignore)
        ends[device] = trained.weights()
    for name, value in ends["cpu"].items():
        np.testing.assert_allclose(ends[DEVICE][name], value, rtol=0.05, atol=5e-3, err_msg=name)


def test_weights_and_logits_are_left_for_the_other_framework():
    """`test_jax_gpu.py` reads them: the same weights give the same logits there."""
    folder = os.environ.get("LOSS_BALANCE_CARRY")
    if not folder:
        pytest.skip("LOSS_BALANCE_CARRY names no folder")
    net = filled(SPARSE)
    images = random_batch(SPARSE)[0]
    with torch.no_grad():
        logits = [x.float().cpu().numpy() for x in net(native(images).to(DEVICE))]
    np.savez(Path(folder) / "carried.npz", **net.dump_weights())
    np.savez(Path(folder) / "logits.npz", *logits)
