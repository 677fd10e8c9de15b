"""timm's weights in our networks, where both are built alike."""

from __future__ import annotations

import numpy as np
import pytest
from support.networks.backbones import foreign

torch = pytest.importorskip("torch")

from loss_balance.reference_models import families
from loss_balance.reference_models.published.timm import weights_from_timm
from loss_balance.reference_models.torch import AnytimeNet

SHAPE = (64, 64, 3)


def drawn(name, classes=7):
    """A network of timm's whose statistics and scales are no defaults."""
    torch.manual_seed(0)
    model = foreign("timm").create_model(name, num_classes=classes).eval()
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.normal_(0.0, 0.1)
                part.running_var.uniform_(0.5, 1.5)
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(0.0, 0.1)
    return model


def ours(name, model, classes=7):
    net = AnytimeNet(families.get(name, num_classes=classes, input_shape=SHAPE)).eval()
    net.load_weights(weights_from_timm(net.spec, model.state_dict()))
    return net


def assert_close(found, expected):
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
def test_denseann169_gives_densenet169s_logits():
    model = drawn("densenet169")
    x = torch.randn(2, 3, 64, 64)
    assert_close(ours("denseann169", model)(x)[-1], model(x))


@torch.no_grad()
def test_resann50_has_resnetv2s_features_in_its_first_stage():
    model = drawn("resnetv2_50")
    net, x = ours("resann50", model), torch.randn(2, 3, 64, 64)
    features = net.stem(x)
    for unit in net.units[:3]:
        features = unit(features)
    assert_close(features, model.stages[0](model.stem(x)))
    # What lies behind: their shortcuts read other maps than ours, as the docstring says.
    block, unit, x = model.stages[2].blocks[3], net.units[3 + 4 + 3], torch.randn(2, 1024, 4, 4)
    assert_close(unit(x), block(x))


@torch.no_grad()
def test_other_classes_leave_the_last_layer_fresh():
    model = drawn("densenet169", classes=11)
    net = ours("denseann169", model)
    fresh = AnytimeNet(net.spec).dump_weights()
    found = net.dump_weights()
    np.testing.assert_array_equal(found["exit84.linear.kernel"], fresh["exit84.linear.kernel"])
    assert not np.array_equal(found["exit84.norm.mean"], fresh["exit84.norm.mean"])


def test_what_does_not_fit_is_refused_in_one_line():
    spec = families.denseann169(7, input_shape=SHAPE)
    state = drawn("densenet169").state_dict()
    del state["features.norm5.bias"]
    state["features.conv0.weight"] = torch.zeros(64, 3, 3, 3)
    with pytest.raises(ValueError, match=r"missing features.norm5.bias; features.conv0.weight has"):
        weights_from_timm(spec, state)
    with pytest.raises(ValueError, match="a DenseANN or ResANN for ILSVRC, got resann-1-4"):
        weights_from_timm(families.resann(1, 4), state)
    state = drawn("resnetv2_50").state_dict()
    state["stages.0.blocks.0.norm1.weight"][3] = -0.5
    with pytest.raises(ValueError, match=r"at least 0, .*got -0\.5"):
        weights_from_timm(families.get("resann50", num_classes=7, input_shape=SHAPE), state)
