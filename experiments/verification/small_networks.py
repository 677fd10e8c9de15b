"""Small networks that have every kind of part between them, for `verify` and the tests."""

from loss_balance.reference_models import families
from loss_balance.reference_models.description.multiscale import (
    MultiScaleStem,
    MultiScaleTransition,
    MultiScaleUnit,
)
from loss_balance.reference_models.description.parts import ConvHead, ImageStem, LinearHead
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.description.units import BottleneckUnit

# Height and width differ, so that a swap shows; an exit after every unit, and after every second.
SMALL = families.resann(2, 4, 3, input_shape=(8, 12, 3))
SPARSE = families.resann(3, 6, 5, input_shape=(12, 8, 2), period=2)
BOTTLENECK = AnytimeSpec(  # ResANN for ILSVRC: stem, all shortcuts; an odd side is halved
    "bottleneck",
    input_shape=(20, 28, 3),
    stem=ImageStem(3, 4),
    units=(
        BottleneckUnit(4, 2, 8),
        BottleneckUnit(8, 2, 8),
        BottleneckUnit(8, 4, 16, stride=2),
        BottleneckUnit(16, 4, 16),
    ),
    exits=(1, 3),
    heads=(LinearHead(8, 3), LinearHead(16, 3)),
)
DENSE = families.denseann(3, 4, 3, input_shape=(8, 12, 2), period=2)
DENSE_BASIC = families.denseann(2, 3, 4, input_shape=(12, 8, 3), bottleneck=0, reduction=0.7)
MULTISCALE = AnytimeSpec(  # MSDNet for ILSVRC, small: scales dropped one by one
    "multiscale",
    input_shape=(40, 56, 3),
    stem=MultiScaleStem(3, (4, 6, 8), downsample=True),
    units=(
        MultiScaleUnit((4, 6, 8), (2, 3, 4), (1, 2, 4)),
        MultiScaleUnit((6, 9, 12), (2, 3, 4), (1, 2, 4)),
        MultiScaleTransition((8, 12, 16), (4, 6, 8)),
        MultiScaleUnit((4, 6, 8), (3, 4), (1, 2, 4)),
        MultiScaleUnit((9, 12), (3, 4), (2, 4)),
        MultiScaleTransition((12, 16), (6, 8)),
        MultiScaleUnit((6, 8), (4,), (2, 4)),
        MultiScaleUnit((12,), (4,), (4,)),
    ),
    exits=(1, 4, 7),
    heads=(ConvHead(16, 10, 3), ConvHead(16, 16, 3), ConvHead(16, 10, 3)),
)
CHAINS = (SMALL, SPARSE, BOTTLENECK, DENSE, DENSE_BASIC, MULTISCALE)  # every kind of part
