"""The paper's comparison on real images: schemes and OPT, as many epochs as the time allows.

DATA=.gpu-data/cifar10.npz python -m benchmarks.gpu.paper --out DIR --device cuda --seconds 300

All runs train side by side, a process each, the images on the device. How many epochs fit is
measured on their first steps and is the same for all of them. A second call with the same --out
goes on. What else may be set: NETWORK (resann-7-16), SCHEMES (const, linear, adaloss, equilibrium,
guided and opt, with commas; names that the package lacks are skipped), EPOCHS (measured), JOBS (all
runs at once), COMPILE=1 (each run then compiles first, which takes much of a short call).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.attempts import Clock
from benchmarks.gpu.images import SkipPart, source_of
from benchmarks.gpu.options import Options
from benchmarks.gpu.paper_epochs import measured_epochs, train_until
from benchmarks.gpu.results import Results
from loss_balance.adaloss import AdaLoss
from loss_balance.experiments.comparison import AT, OPT, SCHEMES, Comparison, outcome
from loss_balance.experiments.engine import Engine, check_installed
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.execution import cores
from loss_balance.experiments.recipes import RECIPES
from loss_balance.reference_models import families

WANTED = "const,linear,adaloss,equilibrium,guided,opt"


def paper(options: Options) -> int:
    """Trains, reports what is finished, and returns the part's exit status."""
    clock = Clock(options.seconds)
    results = Results("paper", options.out, _device(options), seconds=options.seconds)
    try:
        check_installed("torch")
        comparison = _comparison(options, results)
    except SkipPart as nothing:
        results.skip("paper", str(nothing))
        return results.finish()
    except UserError as error:
        results.fail("paper", error)
        return results.finish()
    folder = options.out / "paper"
    jobs = int(os.environ.get("JOBS", 2 if options.device == "cpu" else 0)) or len(
        comparison.runs()
    )
    epochs, rate = _epochs(comparison, folder, jobs, clock, options)
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
    try:
        finished = train_until(clock, comparison.runs(), folder / "runs", jobs)
    except UserError as error:
        results.fail("training", error)
        finished = {}
    _report(comparison, finished, results, rate)
    return results.finish()


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
    recipe = replace(RECIPES[source.name], batch_size=128)
    return Comparison(
        spec,
        recipe,
        source,
        data.fingerprint(),
        tuple(name for name in schemes if name in SCHEMES),
        (0,),
        AdaLoss(len(spec.exits)),
        len(data.y_train),
        engine,
    )


def _epochs(
    comparison: Comparison, folder: Path, jobs: int, clock: Clock, options: Options
) -> tuple[int, float | None]:
    """(how many, images per second of all runs together): as told, as before, or as measured."""
    note = folder / "epochs.json"
    if note.is_file():  # a former call has begun
        known = json.loads(note.read_text())
        return int(known["epochs"]), known["images_per_second"]
    folder.mkdir(parents=True, exist_ok=True)
    told = os.environ.get("EPOCHS", "1" if options.smallest else "")
    rate: float | None = None
    if told:
        epochs = int(told)
    else:
        epochs, rate = measured_epochs(comparison, folder / "first-steps", jobs, clock)
    note.write_text(json.dumps({"epochs": epochs, "images_per_second": rate}))
    return epochs, rate


def _report(
    comparison: Comparison,
    finished: dict[str, dict[str, Any]],
    results: Results,
    rate: float | None,
) -> None:
    """A row per scheme that is finished, and OPT; relative figures where OPT is there."""
    runs = comparison.runs()
    results.add(
        "runs",
        "finished",
        finished=len(finished),
        of=len(runs),
        images_per_second=rate,
        processors=cores(),
    )
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
