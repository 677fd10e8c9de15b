"""Where a state of PyTorch begins, and what checkpoints make of it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from support.balancers.contract_foreign import FOREIGN, applied

from loss_balance import AdaLoss, Constant, Linear, LogLoss, Static, UncertaintyWeighting

torch = pytest.importorskip("torch")
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    set_model_state_dict,
)
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from loss_balance.backends.torch import Balancer


def trained(scheme=2, steps=([4.0, 1.0], [2.0, 3.0]), **options):
    balance = Balancer(scheme, **options)
    for losses in steps:
        balance(torch.tensor(losses))
    return balance


def fields(balance):
    return {name: array.tolist() for name, array in balance.export_state().items()}


def fresh(scheme=2, **options):
    return fields(Balancer(scheme, **options))


def in_model(balance):
    return nn.ModuleDict({"net": nn.Linear(3, 2), "bn": nn.BatchNorm1d(2), "balance": balance})


def leave_garbage():
    """Fills memory that is then free: what empty tensors are likely to get."""
    kept = [torch.full((size,), -6e15) for size in (1, 2, 3, 4, 8, 64) for _ in range(50)]
    del kept


# Where it begins


@pytest.mark.parametrize("scheme", [AdaLoss(2), Linear(2), UncertaintyWeighting(2)], ids=repr)
@pytest.mark.parametrize("parameters_too", [False, True])
def test_a_model_from_the_meta_device_begins_fresh(scheme, parameters_too):
    with torch.device("meta"):
        model = in_model(Balancer(scheme))
    leave_garbage()
    model.to_empty(device="cpu")
    if parameters_too:
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    assert fields(model["balance"]) == fresh(scheme)
    model["balance"](torch.tensor([4.0, 1.0]))
    assert int(model["balance"].step) == 1


def test_emptied_memory_begins_fresh_although_it_was_real():
    model = in_model(trained())
    for _ in range(3):  # memory is recycled: with an old state in it, too
        leave_garbage()
        model.to_empty(device="cpu")
        assert fields(model["balance"]) == fresh()
        model["balance"](torch.tensor([4.0, 1.0]))


def test_what_keeps_values_keeps_the_state():
    balance = trained()
    before = fields(balance)
    for change in (
        balance.cpu,
        balance.half,
        balance.double,
        balance.share_memory,
        lambda: balance.to(torch.float8_e4m3fn),
    ):
        change()
        assert fields(balance) == before


def test_reset_parameters_begins_anew():
    balance = trained(priorities=(1.0, 2.0))
    balance.reset_parameters()
    assert fields(balance) == fresh()


def test_buffers_that_a_loader_materialised_in_place_begin_fresh():
    """As loaders do that set tensors themselves: what is not marked as loaded has no values."""
    with torch.device("meta"):
        balance = Balancer(2, priorities=(1.0, 2.0))
    for name, buffer in list(balance.named_buffers()):
        setattr(balance, name, torch.full_like(buffer, 7, device="cpu"))
    balance.train()
    assert int(balance.step) == 0
    assert float(balance(torch.tensor([4.0, 1.0]))) == pytest.approx(0.2875 * 4 + 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("average", float("nan")),
        ("average", -5.0),
        ("weights", -5e15),
        ("weights", 1.5),
        ("weights", 0.0),
        ("step", -3),
        ("skipped", -1),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_a_state_that_cannot_be_is_found_at_the_first_call(name, value, training):
    balance = Balancer(2).train(training)
    getattr(balance, name).fill_(value)
    before = copy.deepcopy(dict(balance.named_buffers()))
    with pytest.raises(ValueError, match=f"state must be possible, got {name} must be"):
        balance(torch.ones(2))
    for key, buffer in balance.named_buffers():
        torch.testing.assert_close(buffer, before[key], equal_nan=True)
    balance.reset()
    assert float(balance(torch.ones(2))) == 2.0


def test_a_state_that_was_cast_from_outside_is_found_at_the_first_call():
    balance = Balancer(2)
    for name in ("average", "weights", "recent", "pending"):  # as FSDP1 does with buffer_dtype
        getattr(balance, name).data = getattr(balance, name).bfloat16()
    with pytest.raises(ValueError, match=r"state must stay in torch.float32, got torch.bfloat16"):
        balance(torch.ones(2))


# Checkpoints


def test_a_state_dict_says_whose_it_is_and_names_what_differs():
    state = trained(AdaLoss(2), names=["a", "b"]).state_dict()
    for other, message in (
        (Balancer(AdaLoss(2, gamma=0.5), names=["a", "b"]), "gamma was 0.05, is 0.5"),
        (Balancer(LogLoss(2), names=["a", "b"]), "it is of AdaLoss"),
        (Balancer(2, names=["a", "c"]), r"its losses are \['a', 'b'\], expected \['a', 'c'\]"),
        (Balancer(3), "it is of 2 losses"),
    ):
        before = fields(other)
        with pytest.raises(RuntimeError, match=message):
            other.load_state_dict(state)
        assert fields(other) == before


def test_within_a_model_what_differs_is_named_too():
    model, other = in_model(trained()), in_model(Balancer(AdaLoss(2, gamma=0.5)))
    with pytest.raises(RuntimeError, match=r"balance\..*gamma was 0.05, is 0.5"):
        other.load_state_dict(model.state_dict())
    named = in_model(Balancer(2, names=["a", "b"]))
    before = fields(named["balance"])
    with pytest.raises(RuntimeError, match="its losses are"):
        named.load_state_dict(in_model(trained(names=["a", "c"])).state_dict(), strict=False)
    assert fields(named["balance"]) == before


@pytest.mark.parametrize("nested", [False, True])
def test_other_hyperparameters_go_on_if_not_strict(nested):
    kept, other = trained(), Balancer(AdaLoss(2, gamma=0.5))
    if nested:
        told = in_model(other).load_state_dict(in_model(kept).state_dict(), strict=False)
    else:
        told = other.load_state_dict(kept.state_dict(), strict=False)
    assert other.average.tolist() == kept.average.tolist()
    assert any("gamma was 0.05, is 0.5" in key for key in told.unexpected_keys)
    other(torch.tensor([2.0, 1.0]))
    assert other.weights.min() > 0.5


def test_losses_are_matched_by_name_in_a_state_dict():
    kept, other = trained(names=["a", "b"]), Balancer(2, names=["b", "a"])
    other.load_state_dict(kept.state_dict())
    assert other.average.tolist() == kept.average.flip(0).tolist()


def test_weights_of_a_fixed_scheme_are_configuration():
    state = trained(Static((1.0, 1.0))).state_dict()
    fives = Balancer(Static((5.0, 1.0)))
    with pytest.raises(RuntimeError, match="weights was"):
        fives.load_state_dict(state)
    fives.load_state_dict(state, strict=False)
    assert fives.weights.tolist() == [5.0, 1.0]
    del state["_extra_state"]
    fives.load_state_dict(state)
    assert fives.weights.tolist() == [5.0, 1.0]


@pytest.mark.parametrize("nested", [False, True])
def test_a_state_dict_of_version_0_1_loads(nested):
    state = {
        "average": torch.tensor([4.0, 1.0]),
        "weights": torch.tensor([0.2875, 1.0]),
        "step": torch.tensor(7, dtype=torch.int32),
        "skipped": torch.tensor([0, 1], dtype=torch.int32),
    }
    balance = Balancer(2, names=["a", "b"])
    if nested:
        model = in_model(balance)
        old = {k: v for k, v in model.state_dict().items() if not k.startswith("balance.")}
        model.load_state_dict(old | {f"balance.{name}": value for name, value in state.items()})
    else:
        balance.load_state_dict(state)
    for name, value in state.items():
        torch.testing.assert_close(getattr(balance, name), value)


def test_a_checkpoint_without_the_balancer_names_what_is_missing():
    model = in_model(trained())
    state = {k: v for k, v in model.state_dict().items() if "balance" not in k}
    with pytest.raises(RuntimeError, match=r'Missing key.*"balance\.average"'):
        model.load_state_dict(state)
    assert "balance.average" in model.load_state_dict(state, strict=False).missing_keys
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"balance\.mean"'):
        model.load_state_dict(model.state_dict() | {"balance.mean": torch.ones(2)})


def test_a_state_dict_with_values_that_cannot_be_changes_nothing():
    balance = trained()
    before = fields(balance)
    state = balance.state_dict() | {"average": torch.tensor([-7.0, 1.0])}
    with pytest.raises(RuntimeError, match="average must be finite and not negative"):
        balance.load_state_dict(state)
    assert fields(balance) == before


def as_state_dict(state):
    """What an export would be in a checkpoint; what no tensor holds stays as it is."""
    found = {}
    for name, value in state.items():
        numbers = isinstance(value, np.ndarray) and value.dtype.kind in "biufc"
        tensor = torch.from_numpy(np.array(value)) if numbers else value
        found["_extra_state" if name == "identity" else name] = tensor
    return found


@pytest.mark.parametrize(("change", "message"), FOREIGN, ids=lambda x: str(x)[:40])
def test_a_foreign_state_dict_is_named_and_changes_nothing(change, message):
    balance = trained(3, steps=([4.0, 1.0, 0.5], [2.0, 3.0, 0.25]))
    before = fields(balance)
    if "mean" in change:
        message = r"Unexpected key.*mean"
    with pytest.raises(RuntimeError, match=message):
        balance.load_state_dict(as_state_dict(applied(balance.export_state(), change)))
    assert fields(balance) == before


@pytest.mark.parametrize(
    "value", [torch.ones(2).to_sparse(), torch.ones(2).to(torch.float8_e4m3fn), "ones", None]
)
def test_what_numpy_has_no_array_for_is_named_in_a_state_dict_too(value):
    balance = trained()
    before = fields(balance)
    with pytest.raises(RuntimeError, match=r"Balancer: .*average (must be|has shape)"):
        balance.load_state_dict(balance.state_dict() | {"average": value})
    assert fields(balance) == before


def test_loading_with_assign_gives_a_model_on_meta_its_state():
    kept = in_model(trained())
    with torch.device("meta"):
        other = in_model(Balancer(2))
    other.load_state_dict(kept.state_dict(), assign=True)
    assert fields(other["balance"]) == fields(kept["balance"])
    other["balance"](torch.tensor([4.0, 1.0]))
    assert int(other["balance"].step) == 3


def test_loading_keeps_the_place_in_memory():
    balance = trained()
    before = {name: buffer.data_ptr() for name, buffer in balance.named_buffers()}
    balance.load_state_dict(trained().state_dict(), assign=True)
    balance.reset()
    balance(torch.ones(2))
    assert {name: buffer.data_ptr() for name, buffer in balance.named_buffers()} == before


def test_an_accumulation_under_way_goes_on_from_a_state_dict():
    kept, resumed = (Balancer(2, accumulate=3) for _ in range(2))
    kept(torch.tensor([4.0, 1.0]))
    resumed.load_state_dict(kept.state_dict())
    for balance in (kept, resumed):
        for losses in ([2.0, 1.0], [3.0, 4.0]):
            balance(torch.tensor(losses))
    assert fields(resumed) == fields(kept)
    assert int(resumed.step) == 1


def save_and_load_torch(state, path):
    torch.save(state, path / "x.pt")
    return torch.load(path / "x.pt", weights_only=True)


def save_and_load_safetensors(state, path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(state, path / "x.safetensors")
    return safetensors.load_file(path / "x.safetensors")


@pytest.mark.parametrize("way", [save_and_load_torch, save_and_load_safetensors])
def test_a_state_dict_survives_the_formats(way, tmp_path):
    kept, other = in_model(trained(names=["a", "b"])), in_model(Balancer(2, names=["a", "b"]))
    other.load_state_dict(way(kept.state_dict(), tmp_path))
    assert fields(other["balance"]) == fields(kept["balance"])


@pytest.mark.filterwarnings("ignore:.*:UserWarning:torch")  # of running on one process
def test_a_state_dict_survives_distributed_checkpoints(tmp_path):
    kept, other = in_model(trained()), in_model(Balancer(2))
    dcp.save(get_model_state_dict(kept), checkpoint_id=tmp_path / "dcp")
    state = get_model_state_dict(other)
    dcp.load(state, checkpoint_id=tmp_path / "dcp")
    set_model_state_dict(other, state)
    assert fields(other["balance"]) == fields(kept["balance"])


# Copies


@pytest.mark.parametrize("average", [None, get_ema_multi_avg_fn(0.9)])
def test_a_moving_average_of_all_buffers_has_a_state_that_can_be(average):
    """Even where a loss is seen late: its average is then one with that of an unseen one."""
    model = in_model(Balancer(2))
    moving = AveragedModel(model, use_buffers=average is not None, multi_avg_fn=average)
    for step in range(6):
        model["balance"]([torch.tensor(4.0), torch.tensor(1.0) if step > 3 else None])
        moving.update_parameters(model)
    copied = moving.module["balance"]
    assert float(copied.eval()(torch.ones(2))) <= 2.0
    other = in_model(Balancer(2))
    other.load_state_dict(moving.module.state_dict())
    assert np.all(other["balance"].export_state()["average"] >= -1.0)
    if average is None:
        assert fields(copied) == fields(model["balance"])


def test_a_whole_module_saved_and_loaded_goes_on(tmp_path):
    kept = in_model(trained(accumulate=1000, priorities=(1.0, 2.0)))
    torch.save(kept, tmp_path / "model.pt")
    other = torch.load(tmp_path / "model.pt", weights_only=False)
    for model in (kept, other, copy.deepcopy(kept)):
        model["balance"](torch.tensor([4.0, 1.0]))
    assert fields(other["balance"]) == fields(kept["balance"])


def test_every_scheme_keeps_its_further_fields_in_a_state_dict():
    for scheme in (UncertaintyWeighting(2), AdaLoss(2, warmup=4)):
        kept, other = trained(scheme), Balancer(scheme)
        other.load_state_dict(kept.state_dict())
        further = set(kept.state_dict()) - set(Balancer(Constant(2)).state_dict())
        assert len(further) == 1
        for name in further:
            torch.testing.assert_close(getattr(other, name), getattr(kept, name))
