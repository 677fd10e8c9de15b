"""A network with exits of one's own, by import path: `support.networks.own_torch:small`."""

from __future__ import annotations

from torch import nn

from loss_balance.reference_models.torch import with_exits


def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3), nn.BatchNorm2d(outputs), nn.ReLU())


def small(num_classes, input_shape):
    blocks = [block(input_shape[2], 4), block(4, 8), block(8, 8)]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)]
    return with_exits(nn.Sequential(*blocks, *end), ["0", "1"], input_shape=input_shape)
