"""What sharing a batch costs here and means for ILSVRC: docs/distributed/scaling.md's tables.

    python -m benchmarks.scaling

Three measurements on this machine: a training step of one process and of two that share its batch;
the balancer's all-reduce beside it; and how many training images of ILSVRC's size one core reads,
crops and colours in a second. What follows for 8 and 64 GPUs is arithmetic over an assumed rate.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from torch.nn.parallel import DistributedDataParallel

from benchmarks.timing import ratio
from loss_balance.backends.torch import Balancer
from loss_balance.experiments.data.augment import generator
from loss_balance.experiments.data.stream import crop_training
from loss_balance.experiments.training.learners.torch import exit_losses
from loss_balance.reference_models import families
from loss_balance.reference_models.torch import AnytimeNet

BATCH = 64
ROUNDS = 9
INNER = 4  # steps of a round
NETWORKS = ("resann-1-8", "resann-3-16")
ILSVRC_IMAGES, EPOCHS = 1_281_167, 90
ACHIEVED = 100e12  # floating-point operations a second of one GPU: assumed, not measured
LARGE = ("resann50", "resann101", "msdnet38")
GPUS = (1, 8, 64)

Seconds = dict[str, list[float]]


def step_of(name: str, batch: int, *, synced: bool) -> Iterator[None]:
    """Forward, losses, balancing, backward and SGD, a step at a time."""
    spec = families.get(name, num_classes=10)
    net = AnytimeNet(spec)
    alone = not dist.is_initialized() or dist.get_world_size() == 1
    model = net if alone else DistributedDataParallel(net)
    balance = Balancer(len(spec.exits), sync=synced)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    images = torch.randn(batch, 3, 32, 32)
    labels = torch.randint(10, (batch,))
    while True:
        losses = exit_losses(torch.stack(model(images)), labels).mean(dim=1)
        optimizer.zero_grad()
        balance(losses).backward()
        optimizer.step()
        yield


def timed(steps: Iterator[None]) -> float:
    """Seconds of a step."""
    begun = time.perf_counter()
    for _ in range(INNER):
        next(steps)
    return (time.perf_counter() - begun) / INNER


def rank(index: int, meeting: str, size: int, names: tuple[str, ...], out: str) -> None:
    """One of `size` processes, each of one thread; the first writes what it saw."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=index, world_size=size)
    found: Seconds = {}
    for name in names:
        ways = {synced: step_of(name, BATCH // size, synced=synced) for synced in (True, False)}
        for round_ in range(ROUNDS + 2):
            for synced, steps in ways.items():
                seconds = timed(steps)
                if round_ >= 2:  # the first two warm up
                    found.setdefault(f"{name} {synced}", []).append(seconds)
    if index == 0:
        np.savez(out, **{key: np.array(values) for key, values in found.items()})
    dist.destroy_process_group()


def by(size: int, names: tuple[str, ...]) -> Seconds:
    """Seconds a step of each network, with and without the balancer's all-reduce."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/found.npz"
        arguments = (f"file://{folder}/store", size, names, out)
        mp.start_processes(rank, args=arguments, nprocs=size, start_method="spawn")
        with np.load(out) as found:
            return {key: found[key].tolist() for key in found.files}


def images_a_second(seconds: float) -> list[float]:
    """How many JPEGs of 500 x 375 pixels one core reads, crops and colours, in each round."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    content = io.BytesIO()
    small.resize((500, 375), Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
    rates = []
    for round_ in range(ROUNDS):
        begun, count = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            image = Image.open(io.BytesIO(content.getvalue())).convert("RGB")
            crop_training(image, generator(0, round_, 5, count))
            count += 1
        rates.append(count / (time.perf_counter() - begun))
    return rates


def show_measured(one: Seconds, two: Seconds) -> None:
    """A row a network."""
    print("| network | 1 process, ms | 2 processes, ms | step, 2 to 1 | all-reduce's share |")
    print("|---|---|---|---|---|")
    for name in NETWORKS:
        alone, shared, unsynced = one[f"{name} True"], two[f"{name} True"], two[f"{name} False"]
        cells = [f"{1000 * statistics.median(each):.1f}" for each in (alone, shared)]
        print(f"| {name} | {' | '.join(cells)} | {ratio(shared, alone)} | "
              f"{ratio(shared, unsynced)} |")  # fmt: skip


def show_expected(rate: float) -> None:
    """What ILSVRC asks for, over so many images a second and core."""
    print("| network | GFLOPs an image | GPUs | images/s | 90 epochs, hours | cores that read |")
    print("|---|---|---|---|---|---|")
    for name in LARGE:
        operations = 6 * families.get(name, num_classes=1000).costs()[-1].multiply_adds
        for gpus in GPUS:
            speed = gpus * ACHIEVED / operations
            hours = EPOCHS * ILSVRC_IMAGES / speed / 3600
            print(f"| {name} | {operations / 1e9:.0f} | {gpus} | {speed:,.0f} | {hours:,.1f} | "
                  f"{speed / rate:,.0f} |")  # fmt: skip


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each round of reading")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, gloo; "
          f"medians of {ROUNDS} rounds, ratios with quartiles\n")  # fmt: skip
    show_measured(by(1, NETWORKS), by(2, NETWORKS))
    rates = images_a_second(arguments.seconds)
    rate = statistics.median(rates)
    print(f"\nOne core reads {rate:.0f} images a second ({min(rates):.0f} to {max(rates):.0f}).\n")
    show_expected(rate)


if __name__ == "__main__":
    main()
