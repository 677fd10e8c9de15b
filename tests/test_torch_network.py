from __future__ import annotations

import copy
import importlib
import sys

import numpy as np
import pytest
from networks import (
    COUNTS,
    SMALL,
    SPARSE,
    NetworkContract,
    assert_same,
    counted,
    random_batch,
    random_weights,
)

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from loss_balance.experiments.torch_probe import TorchProbe, native  # noqa: E402
from loss_balance.reference_models.torch import AnytimeNet  # noqa: E402


@pytest.fixture
def net():
    net = AnytimeNet(SPARSE).eval()
    net.load_weights(random_weights(SPARSE))
    return net


@pytest.fixture
def images():
    return native(random_batch(SPARSE)[0])


def assert_close(found, expected, tolerance=1e-5):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.float(), b, rtol=tolerance, atol=tolerance)


class TestTorch(NetworkContract):
    probe = TorchProbe()

    def parts_run(self, net, images, exits):
        run = []
        parts = {"stem": net.stem}
        parts |= {f"unit{i}": unit for i, unit in enumerate(net.units)}
        parts |= {f"exit{i}": head for i, head in net.exits.items()}
        for name, part in parts.items():
            part.register_forward_pre_hook(lambda *_, name=name: run.append(name))
        answers = net.anytime(native(images))
        for _ in range(exits):
            next(answers)
        return run


@pytest.mark.parametrize("key", COUNTS)
def test_operations_run_equal_the_counts(key):
    spec = counted(key)
    with torch.device("meta"), torch.no_grad():
        net, image = AnytimeNet(spec).eval(), torch.empty(1, 3, 32, 32)
        with FlopCounterMode(display=False) as counter:
            flops = [counter.get_total_flops() for _ in net.anytime(image)]
    assert flops == [2 * macs for macs in COUNTS[key]["multiply_adds"]]


def test_compiles_without_a_graph_break(net, images):
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert_close(compiled(images), net(images))
    compiled.train()
    sum(logits.sum() for logits in compiled(images)).backward()
    assert all(p.grad is not None for p in net.parameters())


def test_channels_last_stays_so_and_changes_no_logits(net, images):
    expected = net(images)
    maps = []
    for head in net.exits.values():
        head.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
    net.to(memory_format=torch.channels_last)
    assert_close(net(images.to(memory_format=torch.channels_last)), expected)
    assert len(maps) == len(expected)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in maps)


def test_weights_survive_channels_last(net):
    net.to(memory_format=torch.channels_last)
    assert_same(net.dump_weights(), random_weights(SPARSE))
    net.load_weights(random_weights(SPARSE, seed=4))
    assert_same(net.dump_weights(), random_weights(SPARSE, seed=4))


def test_autocast_to_bfloat16_computes_in_bfloat16(net, images):
    expected = net(images)
    with torch.autocast("cpu", torch.bfloat16):
        answers = net(images)
    assert {logits.dtype for logits in answers} == {torch.bfloat16}
    for found, wanted in zip(answers, expected, strict=True):
        assert (found.float() - wanted).abs().max() < 0.02 * wanted.abs().max()


@pytest.mark.parametrize(
    ("dtype", "dumped"), [(torch.bfloat16, np.float32), (torch.float64, np.float64)]
)
def test_weights_are_dumped_in_float32_or_wider(net, dtype, dumped):
    expected = {name: torch.from_numpy(w).to(dtype) for name, w in random_weights(SPARSE).items()}
    found = net.to(dtype).dump_weights()
    for name, array in found.items():
        assert array.dtype == dumped
        np.testing.assert_array_equal(array, expected[name].to(torch.float64).numpy())


def test_a_deep_copy_is_independent(net, images):
    expected = net(images)
    other = copy.deepcopy(net)
    assert_close(other(images), expected, tolerance=0.0)
    other.load_weights(random_weights(SPARSE, seed=5))
    assert_close(net(images), expected, tolerance=0.0)


def test_meta_device_draws_nothing_and_can_be_filled_later(net, images, monkeypatch):
    monkeypatch.delattr("loss_balance.reference_models.torch.initialise")
    with torch.device("meta"):
        empty = AnytimeNet(SPARSE)
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
    filled = empty.to_empty(device="cpu").eval()
    filled.load_weights(net.dump_weights())
    assert_close(filled(images), net(images), tolerance=0.0)


def test_images_with_channels_last_in_the_shape_are_refused(net):
    with pytest.raises(ValueError, match=r"\(B, 2, 12, 8\), got \(4, 12, 8, 2\)"):
        net.anytime(torch.zeros(4, 12, 8, 2))  # before the first exit is asked for


def test_weights_from_read_only_float64_arrays_are_taken():
    given = {name: w.astype(np.float64) for name, w in random_weights(SMALL).items()}
    for array in given.values():
        array.flags.writeable = False
    net = AnytimeNet(SMALL)
    net.load_weights(given)
    assert_same(net.dump_weights(), random_weights(SMALL))


def test_a_missing_torch_names_the_command_to_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "loss_balance.reference_models.torch")
    with pytest.raises(ImportError, match=r"pip install 'loss-balance\[torch\]'"):
        importlib.import_module("loss_balance.reference_models.torch")
