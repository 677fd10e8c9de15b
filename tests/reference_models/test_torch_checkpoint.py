"""Memory in training and inference, and `checkpoint=True`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from support.networks.contract import all_kinds, assert_same, random_batch, random_weights

from loss_balance.experiments.verification.small_networks import DENSE, MULTISCALE, SMALL

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: N812

sys.path.append(str(Path(__file__).parents[2]))  # last: the installed package stays the one tested
from benchmarks.live_memory import LiveMemory
from loss_balance.experiments.verification.probes.torch import TorchProbe
from loss_balance.reference_models import families
from loss_balance.reference_models.torch import (
    AnytimeNet,
    native,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks are small
    yield
    torch.set_num_threads(before)


def filled(spec, **options):
    net = AnytimeNet(spec, **options).train()
    net.load_weights(random_weights(spec))
    return net


def total_loss(logits, labels):
    return sum(F.cross_entropy(answer, torch.from_numpy(labels)) for answer in logits)


def gradients(net):
    return {name: tensor.grad for name, tensor in net.named_parameters()}


def assert_same_gradients(found, expected, tolerance):
    """Within a share of each array's scale: sums over pieces have another order."""
    for name, gradient in expected.items():
        atol = tolerance * gradient.abs().max().item()
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=atol, msg=name)


def counted_batches(net):
    return {int(b) for name, b in net.named_buffers() if name.endswith("num_batches_tracked")}


@all_kinds
def test_checkpointing_changes_no_logits_gradients_and_statistics(spec):
    plain, checkpointed = filled(spec), filled(spec, checkpoint=True)
    batch = random_batch(spec)
    expected, wanted = TorchProbe().gradients(plain, *batch)
    found, gradient = TorchProbe().gradients(checkpointed, *batch)
    for answer, logits in zip(found, expected, strict=True):
        np.testing.assert_array_equal(answer, logits)
    for name, g in wanted.items():
        np.testing.assert_allclose(gradient[name], g, rtol=0, atol=1e-5 * np.abs(g).max())
    assert_same(checkpointed.dump_weights(), plain.dump_weights())
    assert counted_batches(checkpointed) == {1}


@pytest.mark.parametrize("spec", [SMALL, DENSE, MULTISCALE], ids=lambda spec: spec.name)
def test_compiled_checkpointing_changes_no_gradients_and_statistics(spec):
    torch.compiler.reset()
    plain, checkpointed = filled(spec), filled(spec, checkpoint=True)
    images, labels = random_batch(spec)
    total_loss(plain(native(images)), labels).backward()
    compiled = torch.compile(checkpointed, fullgraph=True, backend="aot_eager")
    total_loss(compiled(native(images)), labels).backward()
    assert_same_gradients(gradients(checkpointed), gradients(plain), 1e-5)
    assert_same(checkpointed.dump_weights(), plain.dump_weights())
    assert counted_batches(checkpointed) == {1}


def test_checkpointing_under_autocast_changes_no_gradients():
    plain, checkpointed = filled(DENSE), filled(DENSE, checkpoint=True)
    images, labels = random_batch(DENSE)
    for net in (plain, checkpointed):
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(native(images))
        total_loss(logits, labels).backward()
    assert_same_gradients(gradients(checkpointed), gradients(plain), 0.05)
    assert_same(checkpointed.dump_weights(), plain.dump_weights())


@pytest.mark.parametrize("spec", [DENSE, MULTISCALE], ids=lambda spec: spec.name)
def test_checkpointing_goes_on_with_the_samples_that_are_kept(spec):
    net = filled(spec, checkpoint=True).eval()
    images = native(random_batch(spec)[0])
    expected = net(images)[1]
    answers = net.anytime(images)
    next(answers)
    torch.testing.assert_close(answers.send(np.array([2, 0])), expected[[2, 0]])


def test_an_error_in_the_backward_pass_leaves_the_statistics_in_place():
    net = filled(SMALL, checkpoint=True)
    images, labels = random_batch(SMALL)
    loss = total_loss(net(native(images)), labels)
    expected = net.dump_weights()

    def fail(*_):
        raise RuntimeError("out of memory")

    hook = net.units[1].conv1.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        loss.backward()
    hook.remove()
    assert_same(net.dump_weights(), expected)
    net(native(images))
    assert counted_batches(net) == {2}


@all_kinds
def test_hooks_of_every_part_run_where_checkpointed(spec):
    net, run = filled(spec, checkpoint=True), []
    parts = [net.stem, *net.units, *net.exits.values()]
    for part in parts:
        part.register_forward_hook(lambda part, *_: run.append(part))
    net(native(random_batch(spec)[0]))
    assert set(run) == set(parts)
    assert len(run) == len(parts)


def dense(depth):
    return families.denseann(depth, 8, input_shape=(16, 16, 3))


def multi_scale(depth):
    return families.msdnet(3 * depth, input_shape=(16, 16, 3), period=depth)


def peak(spec, *, train, checkpoint=False):
    """Of one step, without weights and their gradients, in bytes."""
    net = AnytimeNet(spec, checkpoint=checkpoint).train(train)
    images, labels = random_batch(spec, size=32)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with torch.set_grad_enabled(train), LiveMemory() as memory:
        logits = net(native(images))
        if train:
            total_loss(logits, labels).backward()
    return memory.peak


@pytest.mark.parametrize("make", [dense, multi_scale])
def test_inference_takes_memory_in_proportion_to_depth(make):
    """Twice as many further units take twice as much more; quadratic would be four times."""
    few, more, most = (peak(make(depth), train=False) for depth in (4, 8, 16))
    assert 1.5 * (more - few) < most - more < 2.2 * (more - few)


def test_training_a_denseann_checkpointed_takes_memory_in_proportion_to_depth():
    few, more, most = (peak(dense(n), train=True, checkpoint=True) for n in (4, 8, 16))
    assert most - more < 2.5 * (more - few)
    few, more, most = (peak(dense(n), train=True) for n in (4, 8, 16))
    assert most - more > 3 * (more - few)  # else there would be nothing to save


@pytest.mark.parametrize(("make", "share"), [(dense, 0.2), (multi_scale, 0.5)])
def test_checkpointing_saves_memory(make, share):
    plain, saving = (peak(make(8), train=True, checkpoint=c) for c in (False, True))
    assert saving < share * plain


def test_checkpointing_saves_memory_where_compiled():
    """What the compiled forward pass keeps for the backward pass."""
    kept = {}
    for checkpoint in (False, True):
        torch.compiler.reset()
        spec = families.denseann(4, 8, input_shape=(16, 16, 3), period=12)
        net = AnytimeNet(spec, checkpoint=checkpoint)
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
        images = native(random_batch(spec, size=32)[0])
        sizes = {}

        def keep(tensor, sizes=sizes):
            storage = tensor.untyped_storage()
            sizes[storage._cdata] = storage.nbytes()
            return tensor

        compiled(images)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            answers = compiled(images)
        kept[checkpoint] = sum(sizes.values())
        assert answers[0].requires_grad
    assert kept[True] < 0.5 * kept[False]
