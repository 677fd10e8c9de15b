"""Trains what docs/results/beyond.md compares, two runs side by side, and prints it as a table.

    python -m benchmarks.beyond --network resann-3-8 --data digit-pairs --seeds 5 const guided

Without names: all variants (`variants.VARIANTS`). What is finished, in --out or in the results that
come with the study, is not trained again (--anew does). --path takes an npz of images; `--pack`
puts what is in --out to the study's own results.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from benchmarks.beyond import results
from benchmarks.beyond.report import table
from benchmarks.beyond.runs import Job, source_of, train
from benchmarks.beyond.variants import VARIANTS
from loss_balance.experiments.studies.comparison import FRACTIONS
from loss_balance.reference_models import families
from loss_balance.reference_models.description.spec import AnytimeSpec


def jobs(arguments: argparse.Namespace, spec: AnytimeSpec) -> Iterator[Job]:
    """All runs of the command, seed by seed."""
    cuts = sorted({spec.latest_exit(fraction) for fraction in FRACTIONS})
    for seed in range(arguments.seeds):
        for name in arguments.variants or VARIANTS:
            for cut in cuts if name == "opt" else [None]:
                yield Job(
                    name,
                    seed,
                    cut,
                    arguments.network,
                    arguments.data,
                    arguments.path,
                    arguments.validation,
                    arguments.epochs,
                    arguments.rate,
                )


def read_arguments() -> argparse.Namespace:
    """What the command was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.beyond",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help="; ".join(VARIANTS))
    parser.add_argument("--network", default="resann-3-8")
    parser.add_argument("--data", default="digit-pairs")
    parser.add_argument("--path", help="an npz, in place of --data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--compiled", action="store_true", help="the network, for speed")
    parser.add_argument("--anew", action="store_true")
    parser.add_argument("--pack", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/beyond"))
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.variants) - set(VARIANTS))
    if unknown:
        parser.error(f"variants must be among {'; '.join(VARIANTS)}, got {'; '.join(unknown)}")
    return arguments


def main() -> None:
    """The command."""
    arguments = read_arguments()
    if arguments.pack:
        print(results.pack(arguments.out), "results in", results.PACKED)
        return
    data = source_of(arguments.data, arguments.path, arguments.validation).load()
    spec = families.get(
        arguments.network, num_classes=data.num_classes, input_shape=data.input_shape
    )
    found = {}
    missing = []
    for job in jobs(arguments, spec):
        result = None if arguments.anew else results.known(job.setting, job.name, arguments.out)
        if result is None:
            missing.append(job)
        else:
            found[job] = result
    spawn = get_context("spawn")
    # A process each: torch.compile gives up on one that has compiled many networks.
    with ProcessPoolExecutor(arguments.jobs, spawn, max_tasks_per_child=1) as pool:
        futures = {
            pool.submit(train, job, arguments.out, arguments.compiled): job for job in missing
        }
        for done, future in enumerate(as_completed(futures), 1):
            found[futures[future]] = future.result()
            print(f"{done} of {len(missing)}: {futures[future].name}", flush=True)
    order = list(arguments.variants or VARIANTS)
    print(
        table(
            spec, {job: found[job] for job in sorted(found, key=lambda j: order.index(j.variant))}
        )
    )


if __name__ == "__main__":
    main()
