"""Trains what docs/beyond.md compares, two runs side by side, and prints it as a table.

    python -m benchmarks.beyond --network resann-3-8 --data digit-pairs --seeds 5 const guided

Without names: all variants (`variants.VARIANTS`). Finished runs stay in --out, a JSON file each,
and are not trained again. --path takes an npz of images, --keep the first so many for training.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from benchmarks.beyond.report import table
from benchmarks.beyond.runs import Job, train
from benchmarks.beyond.variants import VARIANTS


def jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    """All runs of the command, seed by seed."""
    from loss_balance.experiments.studies.comparison import FRACTIONS
    from loss_balance.reference_models import families

    spec = families.get(arguments.network, num_classes=10, input_shape=(12, 12, 3))
    cuts = sorted({spec.latest_exit(fraction) for fraction in FRACTIONS})
    for seed in range(arguments.seeds):
        for name in arguments.variants or VARIANTS:
            for cut in cuts if name == "opt" else [None]:
                yield Job(
                    name,
                    seed,
                    cut,
                    arguments.network,
                    "npz" if arguments.path else arguments.data,
                    arguments.path,
                    arguments.validation,
                    arguments.epochs,
                    arguments.rate,
                )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beyond", description=__doc__)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--network", default="resann-3-8")
    parser.add_argument("--data", default="digit-pairs")
    parser.add_argument("--path", help="an npz, in place of --data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/beyond"))
    arguments = parser.parse_args()
    unknown = set(arguments.variants) - set(VARIANTS)
    if unknown:
        parser.error(f"variants must be among {', '.join(VARIANTS)}, got {', '.join(unknown)}")
    planned = list(jobs(arguments))
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(train, job, arguments.out): job for job in planned}
        results = {}
        for future in as_completed(futures):
            results[futures[future]] = future.result()
            print(len(results), "of", len(planned), futures[future].name, flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
