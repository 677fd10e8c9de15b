"""MSDNet as its authors published it in PyTorch, beside ours, where their code is at hand.

git clone https://github.com/kalviny/MSDNet-PyTorch
PYTHONPATH=MSDNet-PyTorch python -m benchmarks --parts networks-torch
"""

from __future__ import annotations

import contextlib
import io
from argparse import Namespace
from collections.abc import Callable

from torch import Tensor

from benchmarks.plain_torch import train_step
from loss_balance.reference_models import families
from loss_balance.reference_models.torch import AnytimeNet

BLOCKS = 7
ARGUMENTS = Namespace(  # the repository's own for CIFAR-10, as its README has them
    nBlocks=BLOCKS,
    base=4,
    step=2,
    stepmode="even",
    nChannels=16,
    growthRate=6,
    grFactor=[1, 2, 4],
    bnFactor=[1, 2, 4],
    nScales=3,
    prune="max",
    reduction=0.5,
    bottleneck=True,
    data="cifar10",
)


def pair() -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
    """Training steps (ours, theirs); empty where their code is not on the path.

    Raises:
        ValueError: the two have not the same number of parameters.
    """
    try:
        from models.msdnet import MSDNet  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return {}
    with contextlib.redirect_stdout(io.StringIO()):  # it tells what it builds
        theirs = MSDNet(ARGUMENTS)
    ours = AnytimeNet(families.msdnet_original(BLOCKS))
    counts = [sum(p.numel() for p in net.parameters()) for net in (ours, theirs)]
    if counts[0] != counts[1]:
        raise ValueError(f"both must have as many parameters, got {counts}")
    name = f"msdnet-original-{BLOCKS}, over MSDNet-PyTorch"
    return {name: (train_step(ours), train_step(theirs))}
