"""The paper's comparison on real images: schemes and OPT, as many epochs as the time allows.

DATA=.gpu-data/cifar10.npz python -m benchmarks.gpu.paper --out DIR --device cuda --seconds 300

All runs train side by side, a process each, the images on the device. How many epochs fit is
measured on their first steps and is the same for all of them. A second call with the same --out
goes on. What else may be set: NETWORK (resann-7-16), SCHEMES (const, linear, adaloss, equilibrium,
guided and opt, with commas; names that the package lacks are skipped), EPOCHS (measured), JOBS (all
runs at once), COMPILE=1 (each run then compiles first, which takes much of a short call), KEEP_MIB
(12: of unfinished runs' checkpoints; beyond it they are dropped, for results must travel).
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.attempts import Clock, TimeUp
from benchmarks.gpu.images import SkipPart, source_of
from benchmarks.gpu.options import Options
from benchmarks.gpu.paper_epochs import epochs_of
from benchmarks.gpu.paper_folder import epochs_done, finished_runs, lighten, paces
from benchmarks.gpu.paper_training import Progress, train_within
from benchmarks.gpu.results import Results
from loss_balance.experiments.runs.places import cores
from loss_balance.experiments.studies.comparison import AT, Comparison, outcome
from loss_balance.experiments.training.engine import Engine, check_installed
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.recipes import RECIPES
from loss_balance.experiments.training.schemes import OPT, SCHEMES
from loss_balance.reference_models import families
from loss_balance.schemes.adaloss import AdaLoss

WANTED = "const,linear,adaloss,equilibrium,guided,opt"
ENDING = 3.0  # seconds in which figures are written


def paper(options: Options) -> int:
    """Trains, reports what is finished, and returns the part's exit status."""
    results = Results("paper", options.out, _device(options), seconds=options.seconds)
    try:
        _paper(options, results, Clock(options.seconds - ENDING))
    except SkipPart as nothing:
        results.skip("paper", str(nothing))
    except Exception as error:
        traceback.print_exc()  # the log has all of it
        results.fail("paper", error)
    return results.finish()


def _paper(options: Options, results: Results, clock: Clock) -> None:
    check_installed("torch")
    comparison = _comparison(options, results)
    folder = options.out / "paper" / comparison.spec.name
    count = len(comparison.runs())
    jobs = min(count, int(os.environ.get("JOBS", 2 if options.device == "cpu" else count)))
    share = max(1, cores() // jobs)  # each run's compiler would take all processors
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(share))
    told = os.environ.get("EPOCHS", "1" if options.smallest else "")
    found = epochs_of(comparison, folder, jobs, clock, told)
    if found is None:
        raise SkipPart("no time was left after the first steps, or they took too long")
    epochs, rate = found
    comparison = replace(comparison, recipe=replace(comparison.recipe, epochs=epochs))
    results.update(
        configuration={
            "network": comparison.spec.name,
            "images": comparison.images,
            "epochs": epochs,
            "batch_size": comparison.recipe.batch_size,
            "learning_rate": comparison.recipe.learning_rate,
            "jobs": jobs,
            "precision": comparison.engine.precision,
            "compiled": comparison.engine.compiled,
        }
    )
    progress = Progress(comparison.recipe.batches(comparison.images))
    finished = _train(comparison, folder / "runs", jobs, clock, progress, results)
    _report_runs(comparison, finished, folder, progress, results, rate)
    _report(comparison, finished, results)
    kept = float(os.environ.get("KEEP_MIB", "12"))
    for name in lighten(comparison.runs(), folder / "runs", kept):
        results.skip(name, f"its checkpoint did not fit into {kept:g} MiB: it starts anew")


def _train(
    comparison: Comparison,
    folder: Path,
    jobs: int,
    clock: Clock,
    progress: Progress,
    results: Results,
) -> dict[str, dict[str, Any]]:
    """Results by name when all is done or the time is over. A run that fails stops no other."""
    runs = comparison.runs()
    failed: set[str] = set()
    while True:
        finished = finished_runs(runs, folder)
        missing = [run for run in runs if run.name not in finished and run.name not in failed]
        if not missing:
            return finished
        try:
            train_within(clock, missing, folder, jobs, progress.note)
        except TimeUp:
            return finished_runs(runs, folder)
        except Exception as error:  # such as too little memory on the device
            traceback.print_exc()
            name = _whose(error, missing)
            results.fail(name or "training", error)
            if name is None:
                return finished_runs(runs, folder)
            failed.add(name)


def _whose(error: Exception, runs: Sequence[Run]) -> str | None:
    """The run that an error is about: its message begins with the name."""
    start = str(error).split(":")[0]
    return start if start in {run.name for run in runs} else None


def _comparison(options: Options, results: Results) -> Comparison:
    source = source_of(os.environ.get("DATA"), smallest=options.smallest)
    data = source.load()
    names = os.environ.get("SCHEMES", "const,adaloss,opt" if options.smallest else WANTED)
    schemes = [name for name in names.split(",") if name]
    for name in schemes:
        if name not in SCHEMES:
            results.skip(name, "the package has no scheme of that name")
    network = os.environ.get("NETWORK", "resann-1-4" if options.smallest else "resann-7-16")
    spec = families.get(network, num_classes=data.num_classes, input_shape=data.input_shape)
    gpu = options.device == "cuda"
    engine = Engine(
        "torch",
        options.device,
        "bfloat16" if gpu else "float32",
        compiled=os.environ.get("COMPILE") == "1",
    )
    recipe = RECIPES[source.name]
    if not options.smallest:
        recipe = replace(recipe, batch_size=128)
    return Comparison(
        spec=spec,
        recipe=recipe,
        source=source,
        fingerprint=data.fingerprint(),
        schemes=tuple(name for name in schemes if name in SCHEMES),
        seeds=(0,),
        adaloss=AdaLoss(len(spec.exits)),
        images=len(data.y_train),
        engine=engine,
    )


def _report_runs(
    comparison: Comparison,
    finished: Mapping[str, Any],
    folder: Path,
    progress: Progress,
    results: Results,
    rate: float | None,
) -> None:
    """How far each run came and how fast it went, by the steps that were reported."""
    runs, epochs = comparison.runs(), comparison.recipe.epochs
    results.add(
        "runs",
        "finished",
        finished=len(finished),
        of=len(runs),
        epochs=epochs,
        images_per_second=rate,
        processors=cores(),
    )
    known = paces(folder / "paces.json", runs, progress)
    for run in runs:
        steps, seconds = known[run.name]
        results.add(
            "training",
            run.name,
            finished=run.name in finished,
            epochs=epochs_done(run, folder / "runs"),
            of=epochs,
            training_seconds=seconds,
            images_per_second=steps * run.recipe.batch_size / seconds if seconds else None,
        )


def _report(comparison: Comparison, finished: dict[str, dict[str, Any]], results: Results) -> None:
    """A row per scheme that is finished, and OPT; relative figures where OPT is there."""
    done = tuple(name for name in comparison.schemes if _has(comparison, name, finished))
    for name in comparison.schemes:
        if name not in done:
            results.skip(name, "not all of its runs were finished")
    if not done:
        return
    measured = outcome(replace(comparison, schemes=done), finished)
    for metric, unit, scale in (("test_error", "%", 100.0), ("train_loss", "", 1.0)):
        for name in done:
            values = measured.at_fractions(name, metric).mean(axis=0)
            row = {f"{at} {unit}".strip(): scale * x for at, x in zip(AT, values, strict=True)}
            if OPT in done:
                more = measured.increase(name, metric, OPT)
                row |= {f"{at} over OPT, %": 100 * x for at, x in zip(AT, more, strict=True)}
            results.add(metric, name, **row)


def _has(comparison: Comparison, name: str, finished: Iterable[str]) -> bool:
    cuts = comparison.cuts if name == OPT else [None]
    return all(
        comparison.run_name(name, seed, cut) in finished
        for seed in comparison.seeds
        for cut in cuts
    )


def _device(options: Options) -> str:
    if options.device == "cpu":
        return "cpu"
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"


if __name__ == "__main__":
    raise SystemExit(paper(Options.read(__doc__, 300)))
