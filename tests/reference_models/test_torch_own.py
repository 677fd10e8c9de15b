"""Exits on networks that others wrote: cut into stages that compute nothing beyond them."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
from support.networks.backbones import foreign
from support.networks.own_contract import EXITS, INPUT_SHAPE, STAGES, OwnExitsContract

torch = pytest.importorskip("torch")

from torch import nn
from torch.nn import functional as F  # noqa: N812

from loss_balance import AdaLoss, Static, anytime
from loss_balance.backends.torch import Balancer
from loss_balance.reference_models.torch import with_exits
from loss_balance.reference_models.torch.exporting import to_onnx, to_torch

SIDE = 64
FOREIGN = {
    "timm-resnet": ("timm", "resnet10t", ("layer1", "layer3")),
    "timm-densenet": (
        "timm",
        "densenet121",
        ("features.denseblock1", "features.denseblock2.denselayer3"),
    ),
    "timm-convnext": ("timm", "convnext_atto", ("stages.0", "stages.2")),
    "timm-vit": ("timm", "vit_tiny_patch16_224", ("blocks.2", "blocks.7")),
    "torchvision-resnet": ("torchvision.models", "resnet18", ("maxpool", "layer2", "layer3")),
    "torchvision-densenet": ("torchvision.models", "densenet121", ("features.denseblock2",)),
    "torchvision-convnext": ("torchvision.models", "convnext_tiny", ("features.1", "features.3")),
    "torchvision-vit": ("torchvision.models", "vit_b_32", ("encoder.layers.encoder_layer_1",)),
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Small(nn.Module):
    """A residual network whose first maps are used once more at its end, past every exit."""

    def __init__(self, classes=5):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)))
        self.classify = nn.Linear(8, classes)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.calls = []
        for name, part in self.named_modules():
            part.register_forward_hook(lambda *_, name=name: self.calls.append(name))

    def forward(self, x):
        x = self.stem(x)
        y = self.blocks(self.first(x))
        y = F.dropout(y * self.scale + x, 0.5, self.training)
        return self.classify(y.mean(dim=(2, 3)))


def small(exits=("first", "blocks.0"), **options):
    torch.manual_seed(0)
    net = with_exits(Small(), exits, input_shape=(8, 8, 3), **options).eval()
    net.backbone.calls.clear()
    return net


class Backbone(nn.Module):
    """The contract's."""

    def __init__(self):
        super().__init__()
        self.early = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, 2, padding=1, bias=False), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.ReLU())
        self.linear = nn.Linear(16, 5)

    def forward(self, x):
        x = self.late(self.middle(self.early(x))).mean(dim=(2, 3))
        return self.linear(F.dropout(x, 0.5, self.training))


class TestTorchOwn(OwnExitsContract):
    def make(self, exits=EXITS):
        backbone = Backbone().eval()
        return with_exits(backbone, exits, input_shape=INPUT_SHAPE), backbone

    def own_head(self, shape):
        classes = shape[3] if len(shape) == 4 else 5
        pool = nn.AdaptiveAvgPool2d(1)
        return nn.Sequential(pool, nn.Flatten(), nn.Linear(8, classes))

    def shape_of(self, features):
        return features[2], features[0], features[1]

    def to_native(self, images):
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    def to_numpy(self, logits):
        return logits.detach().numpy()

    def call(self, net, images, fork=None):
        return net(images, fork)

    def computed(self, net, images, exits):
        ran = []
        for name in STAGES:
            part = getattr(net.backbone, name)
            part.register_forward_hook(lambda *_, name=name: ran.append(name))
        for _, _ in zip(range(exits), net.anytime(self.to_native(images)), strict=False):
            pass
        return ran

    def gradients(self, net, images, labels, coefficients, pulls=None):
        fork = None
        if pulls is not None:
            fork = Balancer(Static(pulls), equilibrium=True).fork
        net.zero_grad()
        logits = net(self.to_native(images), fork)
        labels = torch.from_numpy(labels)
        losses = [F.cross_entropy(each, labels) for each in logits]
        sum(c * each for c, each in zip(coefficients, losses, strict=True)).backward()
        named = net.named_weights()
        zeros = torch.zeros_like
        return {
            name: (zeros(named[name]) if named[name].grad is None else named[name].grad).numpy()
            for name in net.trained_names()
        }


@pytest.fixture
def images():
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_networks_of_timm_and_torchvision_answer_in_stages(kind):
    module, name, exits = FOREIGN[kind]
    side = 224 if "vit" in kind else SIDE
    make = foreign(module).create_model if module == "timm" else getattr(foreign(module), name)
    torch.manual_seed(0)
    model = make(name, num_classes=7) if module == "timm" else make(num_classes=7)
    net = with_exits(model, exits, input_shape=(side, side, 3)).eval()
    assert net.names == (*exits, "output")
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        together, alone = net(x), model(x)
        torch.testing.assert_close(together[-1], alone, rtol=1e-6, atol=1e-6)
        for a, b in zip(net.anytime(x), together, strict=True):
            torch.testing.assert_close(a, b)
    costs = net.costs()
    assert [c.multiply_adds for c in costs] == sorted({c.multiply_adds for c in costs})
    assert costs[-1].parameters == sum(p.numel() for p in net.parameters())


def test_nothing_deeper_than_an_exit_is_computed(images):
    net = small()
    answers = net.anytime(images)
    next(answers)
    assert net.backbone.calls == ["stem", "first.0", "first.1", "first.2", "first"]
    next(answers)
    assert net.backbone.calls[5:] == ["blocks.0"]
    next(answers)
    assert net.backbone.calls[6:] == ["blocks.1", "blocks.2", "classify"]


def test_samples_leave_with_all_that_crosses_an_exit(images):
    """The first maps are added at the end: they lose the samples too."""
    net = small()
    whole = net(images)
    answers = net.anytime(images)
    next(answers)
    torch.testing.assert_close(answers.send(np.array([3, 1])), whole[1][[3, 1]])
    torch.testing.assert_close(answers.send(torch.tensor([1])), whole[2][[1]])
    found = anytime.early_exit(net, images, 0.0)
    assert found.exits.tolist() == [0] * 4
    assert anytime.predict(net.anytime(images), max_exits=2).exit == 1


def test_what_stands_outside_of_modules_keeps_the_mode(images):
    """The dropout of the network's own `forward` is on in training and off in evaluation."""
    net = small()
    torch.testing.assert_close(net(images)[-1], net.backbone(images))
    net.train()
    torch.manual_seed(3)
    found = net(images)[-1]
    net.backbone.first[1].reset_running_stats()
    torch.manual_seed(3)
    torch.testing.assert_close(found, net.backbone(images))
    assert not torch.equal(found, net(images)[-1])


def test_costs_are_those_of_convolutions_and_products_and_the_heads_before():
    net = small()
    pixels, linear = 64, 8 * 5
    conv = 9 * 8 * 8 * pixels
    first = 9 * 3 * 8 * pixels + conv + linear
    expected = [first, first + conv + linear, first + 3 * conv + 2 * linear]
    assert [cost.multiply_adds for cost in net.costs()] == expected
    parameters = sum(p.numel() for p in net.backbone.parameters())
    heads = sum(p.numel() for p in net.heads.parameters())
    assert net.costs()[-1].parameters == parameters + heads
    net.backbone.requires_grad_(requires_grad=False)
    assert net.costs()[-1].parameters == parameters + heads  # measured once


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_the_trunk_has_one_loss_worth_of_gradient_in_equilibrium(compiled, images):
    net = small().train(mode=False)
    balance = Balancer(AdaLoss(3), equilibrium=True)
    run = torch.compile(net, fullgraph=True, backend="aot_eager") if compiled else net
    labels = torch.tensor([0, 1, 2, 3])

    def gradients(**options):
        net.zero_grad()
        losses = [F.cross_entropy(logits, labels) for logits in run(images, **options)]
        total = balance(losses) if options else sum(losses)
        total.backward()
        return [p.grad.clone() for p in net.parameters()]

    names = [name for name, _ in net.named_parameters()]
    found, plain = gradients(fork=balance.fork), gradients()
    by_name = dict(zip(names, found, strict=True))
    assert set(by_name) == set(names)
    for name, grad in zip(names, plain, strict=True):
        if name.startswith(("heads.", "backbone.classify")):  # of their own loss alone
            torch.testing.assert_close(by_name[name], grad)
    # All weights were 1: the trunk before the first exit has the mean of the three.
    parts = []
    for k in range(3):
        net.zero_grad()
        F.cross_entropy(net(images)[k], labels).backward()
        parts.append(net.backbone.first[0].weight.grad.clone())
    torch.testing.assert_close(by_name["backbone.first.0.weight"], sum(parts) / 3)


def test_a_network_is_cut_after_one_exit(images):
    net = small()
    for k, name in enumerate(net.names):
        cut = net.single_exit(k)
        assert cut.names == (name,)
        (logits,) = cut(images)
        torch.testing.assert_close(logits, net(images)[k])
        torch.testing.assert_close(next(cut.anytime(images)), logits)
        torch.testing.assert_close(copy.deepcopy(cut)(images), [logits])
    cut = net.single_exit(1)
    assert cut.costs()[0].multiply_adds == net.costs()[1].multiply_adds - 8 * 5
    assert set(cut.dump_weights()) < set(net.dump_weights()) | {"heads.0.4.bias"}
    assert "backbone.classify.weight" not in cut.dump_weights()
    cut.zero_grad()
    cut(images)[0].sum().backward()
    named = cut.named_weights()
    assert all(named[name].grad is not None for name in cut.trained_names())


def test_heads_of_ones_own_lazy_ones_and_functions_of_the_shape(images):
    shapes = []

    def made(shape):
        shapes.append(shape)
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(5))

    own = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(5))
    net = small({"first": made, "blocks.0": own})
    assert shapes == [(8, 8, 8)]
    assert net.heads[1] is own
    assert [tuple(logits.shape) for logits in net(images)] == [(4, 5)] * 3


def test_weights_go_out_and_in_and_what_does_not_fit_changes_nothing():
    net, other = small(), small()
    with torch.no_grad():
        for tensor in other.named_weights().values():
            tensor.add_(1.0)
    weights = other.dump_weights()
    assert weights["backbone.stem.weight"].shape == (8, 3, 3, 3)
    assert "backbone.first.1.running_var" in weights
    before = net.dump_weights()
    wrong = {**weights, "more": np.zeros(1), "heads.0.4.bias": np.zeros(6)}
    del wrong["backbone.scale"]
    message = r"missing backbone.scale; unknown more; heads.0.4.bias has shape \(6,\), expected"
    with pytest.raises(ValueError, match=message):
        net.load_weights(wrong)
    for name, array in net.dump_weights().items():
        np.testing.assert_array_equal(array, before[name])
    net.load_weights(weights)
    for name, array in net.dump_weights().items():
        np.testing.assert_array_equal(array, weights[name])


def test_copies_stand_alone_and_the_model_is_the_users_own(images):
    model = Small()
    net = with_exits(model, ["first"], input_shape=(8, 8, 3))
    assert model.training
    assert net.backbone is model
    twin = copy.deepcopy(net).eval()
    with torch.no_grad():
        twin.backbone.stem.weight.zero_()
    assert model.stem.weight.abs().sum() > 0
    torch.testing.assert_close(twin(images)[-1], twin.backbone(images))
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    twin.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(twin(images)[-1], net.eval()(images)[-1])


class Depends(Small):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


class Twice(Small):
    def forward(self, x):
        x = self.first(self.first(self.stem(x)))
        return self.classify(self.blocks(x).mean(dim=(2, 3)))


class Counts(Small):
    def forward(self, x):
        count = x.size(0)
        x = self.first(self.stem(x)[:count])
        return self.classify(x.reshape(count, 8, -1).mean(dim=2))


class Pair(Small):
    def forward(self, x):
        y = super().forward(x)
        return y, y


@pytest.mark.parametrize(
    ("model", "exits", "message"),
    [
        (Small, ["classify"], "before the model's output"),
        (Depends, ["first"], "free of Python that depends on values"),
        (Twice, ["first"], "a module called once, got 'first', called 2 times"),
        (Counts, ["first"], "tensors of the batch.*got 1 for one image"),
        (Pair, ["first"], "must return one tensor"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(model, exits, message):
    with pytest.raises(ValueError, match=message):
        with_exits(model(), exits, input_shape=(8, 8, 3))


def test_its_exports_equal_it_and_answer_without_a_framework(tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from loss_balance.reference_models.onnx import AnytimeNet

    torch.manual_seed(0)
    net = with_exits(Backbone().eval(), EXITS, input_shape=INPUT_SHAPE)
    assert to_torch(net, tmp_path / "torch").difference <= 1e-5
    assert to_onnx(net, tmp_path / "onnx").difference <= 1e-5
    found = AnytimeNet(tmp_path / "onnx")
    assert [exit_.name for exit_ in found.about.exits] == [*EXITS, "output"]
    assert found.costs() == net.costs()
    images = np.random.default_rng(0).normal(size=(3, *INPUT_SHAPE)).astype(np.float32)
    answers = found.anytime(images)
    next(answers)
    expected = net(torch.from_numpy(images).permute(0, 3, 1, 2))
    np.testing.assert_allclose(answers.send([2]), expected[1][[2]].detach(), rtol=1e-4, atol=1e-5)
