from __future__ import annotations

import copy
import importlib
import sys

import numpy as np
import pytest
from support.networks.contract import (
    CHAINS,
    COUNTS,
    NetworkContract,
    all_kinds,
    assert_same,
    counted,
    random_batch,
    random_weights,
)

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode

from loss_balance.experiments.verification.probes.torch import TorchProbe
from loss_balance.experiments.verification.small_networks import SMALL, SPARSE
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


def filled(spec):
    net = AnytimeNet(spec).eval()
    net.load_weights(random_weights(spec))
    return net


@pytest.fixture
def net():
    return filled(SPARSE)


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
    height, width, channels = spec.input_shape
    with torch.device("meta"), torch.no_grad():
        net, image = AnytimeNet(spec).eval(), torch.empty(1, channels, height, width)
        with FlopCounterMode(display=False) as counter:
            flops = [counter.get_total_flops() for _ in net.anytime(image)]
    assert flops == [2 * macs for macs in COUNTS[key]["multiply_adds"]]


@all_kinds
def test_compiles_without_a_graph_break_and_no_second_time(spec):
    torch.compiler.reset()  # a function is compiled for so many networks only
    net, images = filled(spec), native(random_batch(spec)[0])
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert_close(compiled(images), net(images))
    compiled.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for stance in ("default", "fail_on_recompile"):
        with torch.compiler.set_stance(stance):
            sum(logits.sum() for logits in compiled(images)).backward()
        assert all(p.grad is not None for p in net.parameters())
        optimizer.step()
        optimizer.zero_grad()


# A map of one channel is in both formats at once and concatenating it loses channels_last: instead
# of MULTISCALE one that has more, as all published ones do.
WIDER = families.msdnet(9, 3, input_shape=(12, 20, 3))


@pytest.mark.parametrize("spec", [*CHAINS[:-1], WIDER], ids=lambda spec: spec.name)
def test_channels_last_stays_so_and_changes_no_logits(spec):
    net, images = filled(spec), native(random_batch(spec)[0])
    expected = net(images)
    maps = []
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda _, inputs, output: maps.extend((*inputs, output)))
    net.to(memory_format=torch.channels_last)
    assert_close(net(images.to(memory_format=torch.channels_last)), expected)
    assert len(maps) == 2 * sum(isinstance(m, torch.nn.Conv2d) for m in net.modules())
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in maps)


def test_the_samples_that_are_kept_stay_channels_last():
    net = filled(WIDER).to(memory_format=torch.channels_last)
    answers = net.anytime(native(random_batch(WIDER)[0]))
    next(answers)
    maps = []
    unit = net.units[WIDER.exits[0] + 1]
    unit.register_forward_pre_hook(lambda _, inputs: maps.extend(inputs[0]))
    answers.send(torch.tensor([3, 1]))
    assert [len(x) for x in maps] == [2] * len(maps)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in maps)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, torch.uint8, torch.int64])
def test_the_samples_to_keep_can_be_any_integers(net, images, kind):
    expected = net(images)[1][[1, 3]]
    answers = net.anytime(images)
    next(answers)
    given = np.array([1, 3])
    given.flags.writeable = False
    kept = torch.tensor([1, 3], dtype=kind) if isinstance(kind, torch.dtype) else given.astype(kind)
    assert_close([answers.send(kept)], [expected])


def test_weights_survive_channels_last(net):
    net.to(memory_format=torch.channels_last)
    assert_same(net.dump_weights(), random_weights(SPARSE))
    net.load_weights(random_weights(SPARSE, seed=4))
    assert_same(net.dump_weights(), random_weights(SPARSE, seed=4))


@all_kinds
def test_autocast_to_bfloat16_computes_in_bfloat16(spec):
    net, images = filled(spec), native(random_batch(spec)[0])
    expected = net(images)
    with torch.autocast("cpu", torch.bfloat16):
        answers = net(images)
    assert {logits.dtype for logits in answers} == {torch.bfloat16}
    for found, wanted in zip(answers, expected, strict=True):
        assert (found.float() - wanted).abs().max() < 0.03 * wanted.abs().max()


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
    monkeypatch.delattr("loss_balance.reference_models.torch.net.initialise")
    with torch.device("meta"):
        empty = AnytimeNet(SPARSE)
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
    other = empty.to_empty(device="cpu").eval()
    other.load_weights(net.dump_weights())
    assert_close(other(images), net(images), tolerance=0.0)


def test_building_leaves_the_random_numbers_of_torch_alone():
    before = torch.random.get_rng_state()
    net = AnytimeNet(SMALL)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert {int(norm.num_batches_tracked) for norm in norms(net)} == {0}


def norms(net):
    return [layer for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)]


def test_arrays_that_are_no_numbers_change_nothing(net):
    wrong = random_weights(SPARSE, seed=8)
    wrong["exit2.linear.bias"] = np.array(list("abcde"))
    with pytest.raises(TypeError):
        net.load_weights(wrong)
    assert_same(net.dump_weights(), random_weights(SPARSE))


def test_images_with_channels_last_in_the_shape_are_refused(net):
    with pytest.raises(ValueError, match=r"\(B, 2, 12, 8\), got \(4, 12, 8, 2\)"):
        net.anytime(torch.zeros(4, 12, 8, 2))  # before the first exit is asked for


def test_a_missing_torch_names_the_command_to_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "loss_balance.reference_models.torch")
    with pytest.raises(ImportError, match=r"pip install 'loss-balance\[torch\]'"):
        importlib.import_module("loss_balance.reference_models.torch")
