"""Which training steps are measured, in order of what they tell, and what utilisation means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from loss_balance.reference_models import families
from loss_balance.reference_models.description.spec import AnytimeSpec

# Dense bfloat16 FLOP/s by the start of the device's name, from NVIDIA's data sheets; a longer name
# stands before the one it begins with.
PEAKS = {
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989.4e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA H200": 989.4e12,
    "NVIDIA A100": 312e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L4": 121e12,
}
TRAINING = 3  # forward passes that a training step counts for: the backward pass takes two
FLOPS = 2  # of a multiply-add


class Trial(NamedTuple):
    """One way to train a network."""

    mode: str = "eager"  # or "CUDA graph", "compiled by unit", "compiled"; JAX is always compiled
    exits: str = "all"  # balanced by AdaLoss; "last": the network with its last exit alone
    checkpoint: bool = False
    peer: str = ""  # a network of timm's instead, by its name there

    def __str__(self) -> str:
        what = f"timm {self.peer}" if self.peer else f"{self.exits} exits"
        what = "last exit" if what == "last exits" else what
        return f"{what}, {self.mode}" + (", checkpoint" if self.checkpoint else "")


class Group(NamedTuple):
    """Training steps that are measured interleaved; ratios are to the first."""

    network: str  # as `families.get` knows it
    batch: int
    trials: tuple[Trial, ...]
    side: int | None = None  # of an image, if not the family's own

    def spec(self) -> AnytimeSpec:
        """What is trained."""
        shape = None if self.side is None else (self.side, self.side, 3)
        return families.get(self.network, input_shape=shape)

    def __str__(self) -> str:
        return f"{self.network}, batch {self.batch}"


DENSEANN = "denseann-12-16-bottleneck-0-reduction-1.0"  # of the paper's for CIFAR
SINGLE, EXITS = Trial(exits="last"), Trial()
GRAPHS = (Trial("CUDA graph", "last"), Trial("CUDA graph"))
CHECKPOINT = Trial(checkpoint=True)


def eager() -> list[Group]:
    """Trials in PyTorch without a compiler."""
    resnet, densenet = Trial(peer="resnet50"), Trial(peer="densenet169")
    return [
        Group("resann-9-32", 128, (SINGLE, EXITS, *GRAPHS, CHECKPOINT)),
        Group("resann50", 64, (SINGLE, EXITS, resnet, CHECKPOINT)),
        Group("msdnet-original-7", 128, (SINGLE, EXITS, GRAPHS[1], CHECKPOINT)),
        Group("denseann169", 64, (SINGLE, EXITS, densenet, CHECKPOINT)),
        Group(DENSEANN, 128, (SINGLE, EXITS, GRAPHS[1], CHECKPOINT)),
        Group("msdnet38", 64, (SINGLE, EXITS, CHECKPOINT)),
    ]


def compiled() -> list[Group]:
    """Trials with `torch.compile`, which takes most of the time; each beside its eager self.

    Unit by unit first, where most units are alike: it compiles each kind once.
    """
    units, whole = Trial("compiled by unit"), Trial("compiled")
    checkpoint = Trial("compiled", checkpoint=True)
    return [
        Group("resann-9-32", 128, (EXITS, units)),
        Group("resann50", 64, (EXITS, units)),
        Group("resann-9-32", 128, (EXITS, whole)),
        Group("resann50", 64, (EXITS, whole, Trial("compiled", peer="resnet50"))),
        Group("msdnet-original-7", 128, (EXITS, whole, checkpoint)),
        Group("denseann169", 64, (EXITS, whole, checkpoint)),
        Group("msdnet38", 64, (EXITS, whole, checkpoint)),
        Group(DENSEANN, 128, (EXITS, whole, checkpoint)),
    ]


def jax() -> list[Group]:
    """Trials in JAX; each step is compiled anew, so what tells less comes last."""
    exits, single = Trial("compiled"), Trial("compiled", "last")
    checkpoint = Trial("compiled", checkpoint=True)
    return [
        Group("resann-9-32", 128, (exits, single)),
        Group("resann50", 64, (exits, single)),
        Group("msdnet-original-7", 128, (exits, checkpoint, single)),
        Group("denseann169", 64, (exits, checkpoint)),
        Group("msdnet38", 64, (exits, checkpoint)),
        Group(DENSEANN, 128, (exits, checkpoint)),
    ]


def smallest(groups: Sequence[Group]) -> list[Group]:
    """The first group's trials and any other kind's, on networks for a CPU's seconds."""
    kinds = {trial for group in groups for trial in group.trials}
    trials = dict.fromkeys([*groups[0].trials, *sorted(kinds - set(groups[0].trials))])
    return [Group("resann-1-2", 2, tuple(trials), side=4)]


STOPPING = ("resann-9-32", "msdnet-original-7", "resann50", "msdnet38", "denseann169", DENSEANN)


def stopping(*, smallest: bool) -> list[AnytimeSpec]:
    """Networks that are stopped at batch 1."""
    if not smallest:
        return [families.get(name) for name in STOPPING]
    name = "msdnet-original-2-base-1-step-1"  # it hands lists of maps from exit to exit
    return [families.get(name, input_shape=(8, 8, 3))]


def utilisation(multiply_adds: int, images_per_s: float, device: str) -> float | None:
    """Share of the device's peak that a training step's own arithmetic makes up; None if unknown.

    What `checkpoint` computes again does not count.

    Args:
        multiply_adds: of a forward pass, per image.
        images_per_s: trained.
        device: its name.
    """
    peak = next((peak for name, peak in PEAKS.items() if device.startswith(name)), None)
    return None if peak is None else TRAINING * FLOPS * multiply_adds * images_per_s / peak
