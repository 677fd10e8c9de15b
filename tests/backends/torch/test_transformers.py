"""A balancer within a model of Hugging Face: `save_pretrained` and `from_pretrained`."""

from __future__ import annotations

import pytest

from loss_balance import AdaLoss

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from torch import nn

from loss_balance.backends.torch import Balancer

LOSSES = ([4.0, 1.0], [2.0, 3.0])


class Config(transformers.PretrainedConfig):
    model_type = "balanced"

    def __init__(self, gamma=0.05, names=("a", "b"), balanced=True, **options):
        self.gamma, self.names, self.balanced = gamma, list(names), balanced
        super().__init__(**options)


class Model(transformers.PreTrainedModel):
    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.net, self.norm = nn.Linear(8, 8), nn.BatchNorm1d(8)
        if config.balanced:
            scheme = AdaLoss(2, gamma=config.gamma)
            self.balance = Balancer(scheme, names=config.names, priorities=(1.0, 2.0))
        self.post_init()

    def _init_weights(self, module):
        pass


@pytest.fixture
def trained(tmp_path):
    """The folder of a model whose balancer has seen two steps, and what it knows."""
    model = Model(Config()).train()
    for losses in LOSSES:
        model.balance(torch.tensor(losses))
    model.save_pretrained(tmp_path / "trained")
    return tmp_path / "trained", state_of(model)


def state_of(model):
    exported = model.balance.export_state()
    return {name: value.tolist() for name, value in exported.items() if name != "identity"}


def leave_garbage():
    """Fills memory that is then free: what empty tensors are likely to get."""
    kept = [torch.full((size,), -6e15) for size in (1, 2, 3, 4, 8, 64) for _ in range(50)]
    del kept


def rewritten(folder, keep):
    """The checkpoint with those of its tensors whose name `keep` says yes to."""
    safetensors = pytest.importorskip("safetensors.torch")
    path = folder / "model.safetensors"
    tensors = {k: v for k, v in safetensors.load_file(path).items() if keep(k)}
    safetensors.save_file(tensors, path, metadata={"format": "pt"})


def test_a_checkpoint_without_the_balancer_lets_it_begin_fresh(trained):
    """transformers#48892: buffers that a checkpoint lacks are left with what lies in memory."""
    folder, _ = trained
    rewritten(folder, lambda name: "balance" not in name)
    leave_garbage()
    model = Model.from_pretrained(folder)
    assert state_of(model) == state_of(Model(Config()))
    total = model.train().balance(torch.tensor([4.0, 1.0]))
    assert float(total) == pytest.approx(0.2875 * 4 + 2)


def test_a_checkpoint_with_the_balancer_gives_its_state(trained):
    folder, expected = trained
    assert state_of(Model.from_pretrained(folder)) == expected


def test_a_state_in_bfloat16_is_kept_in_float32(trained):
    folder, expected = trained
    model = Model.from_pretrained(folder, dtype=torch.bfloat16)
    assert model.net.weight.dtype == torch.bfloat16
    assert model.balance.average.dtype == torch.float32
    found = state_of(model)
    assert found["average"] == pytest.approx(expected["average"], rel=0.01)
    assert found["step"] == 2


def test_a_checkpoint_of_version_0_1_gives_its_state(trained):
    folder, expected = trained
    new = ("_extra_state", "recent", "pending")
    rewritten(folder, lambda name: not name.endswith(new))
    leave_garbage()
    assert state_of(Model.from_pretrained(folder)) == expected


def test_losses_of_another_order_are_matched_by_name(trained):
    folder, expected = trained
    model = Model.from_pretrained(folder, config=Config(names=("b", "a")))
    assert state_of(model)["average"] == expected["average"][::-1]


def test_other_hyperparameters_are_named_at_the_first_call_and_go_on_if_told_so(trained):
    folder, expected = trained
    balance = Model.from_pretrained(folder, config=Config(gamma=0.5)).train().balance
    for _ in range(2):
        with pytest.raises(ValueError, match=r"gamma was 0\.05, is 0\.5"):
            balance(torch.tensor([4.0, 1.0]))
    balance.import_state(balance.export_state(), strict=False)
    assert balance.average.tolist() == expected["average"]
    balance(torch.tensor([4.0, 1.0]))
    assert balance.weights.min() > 0.5
