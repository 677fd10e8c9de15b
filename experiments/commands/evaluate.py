"""`loss-balance evaluate`: a finished run in any framework, against what it recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from loss_balance.experiments.commands import options as opts
from loss_balance.experiments.data.dataset import Dataset
from loss_balance.experiments.runs.trained import Trained, read
from loss_balance.experiments.terminal import console
from loss_balance.experiments.training import feed
from loss_balance.experiments.training.engine import FRAMEWORKS, Engine, choose_engine
from loss_balance.experiments.training.learners.by_framework import learner
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.own import check_trains
from loss_balance.schemes.fixed import Constant


@opts.shows(progress=False)
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    framework: Annotated[
        str | None,
        typer.Option(
            "--framework",
            "--backend",
            help=f"Framework to compute in: {', '.join(FRAMEWORKS)}.",
            show_default="the run's",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[
        str | None, typer.Option(help="float32 or bfloat16.", show_default="the run's")
    ] = None,
    path: Annotated[
        Path | None,
        typer.Option(help="Where the data are now.", show_default="where they were"),
    ] = None,
) -> None:
    """Evaluate a trained run in any framework, beside what it recorded itself.

    Exit status 1 if the two disagree.
    """
    if not evaluate_run(run, framework, device, precision, path):
        raise typer.Exit(1)


Values = NDArray[np.float64]


class Tolerance(NamedTuple):
    """How far two computations of the same network may be apart."""

    loss: float  # relative, or absolute below a loss of 1
    error: float  # share of the images; one image in any case

    def text(self) -> str:
        """The tolerance in words."""
        return f"losses within {self.loss:g}, errors within {100 * self.error:g} % of the images"


# Logits differ by 1e-6 of their scale between frameworks in float32, by 1e-2 in bfloat16.
TOLERANCES = {"float32": Tolerance(1e-3, 2e-3), "bfloat16": Tolerance(5e-2, 2e-2)}


@dataclass(frozen=True)
class Evaluation:
    """What was found per exit, on the split that the run was tested on."""

    run: Trained
    engine: Engine
    images: int
    loss: Values
    error: Values

    @property
    def tolerance(self) -> Tolerance:
        """The tolerance of the coarser precision of the two."""
        coarse = "bfloat16" in (self.engine.precision, self.run.engine.precision)
        return TOLERANCES["bfloat16" if coarse else "float32"]

    @property
    def agrees(self) -> NDArray[np.bool_]:
        """Whether each exit's loss and error are those that the run recorded."""
        loss, error = (np.array(self.run.result[m]) for m in ("test_loss", "test_error"))
        near = np.abs(self.loss - loss) <= self.tolerance.loss * np.maximum(1, loss)
        wrong = np.rint(np.abs(self.error - error) * self.images)
        agrees: NDArray[np.bool_] = near & (wrong <= max(1, self.tolerance.error * self.images))
        return agrees


def evaluate_run(
    folder: Path,
    framework: str | None = None,
    device: str = "cpu",
    precision: str | None = None,
    path: Path | None = None,
) -> bool:
    """Shows the evaluation; whether it agrees with what the run recorded.

    Raises:
        UserError: no finished run, other data than it was trained on, or a bad option.
    """
    run = read(folder)
    here = choose_engine(
        run.framework if framework is None else framework,
        device,
        run.engine.precision if precision is None else precision,
        compiled=False,
    )
    evaluation = evaluate_with(run, run.data(path), here)
    show(evaluation)
    return bool(evaluation.agrees.all())


def evaluate_with(run: Trained, data: Dataset, here: Engine) -> Evaluation:
    """Evaluates the run's weights in the learner of `here`.

    Raises:
        UserError: the weights are damaged or not this network's.
    """
    check_trains(run.spec, here.framework, here.precision)
    weights = run.weights()
    made = learner(_as_run(run, here), data)
    made.load_weights(weights)
    loss, error_rate = made.evaluate(feed.evaluation(data, data.x_test, data.y_test))
    return Evaluation(run, here, len(data.y_test), np.array(loss), np.array(error_rate))


def _as_run(run: Trained, here: Engine) -> Run:
    """What a learner is made of; the scheme is idle, for nothing is trained."""
    scheme = Constant(len(run.spec.exits))
    seed = int(run.config["seed"])
    return Run(
        name=run.folder.name,
        spec=run.spec,
        scheme=scheme,
        recipe=run.recipe,
        seed=seed,
        source=run.source,
        fingerprint=run.fingerprint,
        engine=here,
    )


def show(evaluation: Evaluation) -> None:
    """A row per exit, and the verdict."""
    run, here = evaluation.run, evaluation.engine
    table = Table(
        title=f"{run.spec.name} of {run.folder.name} on {evaluation.images:,} images of "
        f"{run.source.name}{' (held out)' * run.source.validation}",
        title_justify="left",
    )
    table.add_column("exit", justify="right")
    for metric in ("loss", "error, %"):
        table.add_column(f"{metric}\n{here.framework} now", justify="right")
        table.add_column(f"{metric}\n{run.framework} recorded", justify="right")
    table.add_column("agree")
    for k, agrees in enumerate(evaluation.agrees):
        table.add_row(
            str(k + 1),
            f"{evaluation.loss[k]:.6f}",
            f"{run.result['test_loss'][k]:.6f}",
            f"{100 * evaluation.error[k]:.2f}",
            f"{100 * run.result['test_error'][k]:.2f}",
            "yes" if agrees else "no",
        )
    console.print(table)
    verdict = "agree" if evaluation.agrees.all() else "disagree"
    console.say(
        f"{here.framework} ({here.precision}) and the run's {run.framework} "
        f"({run.engine.precision}) {verdict}: {evaluation.tolerance.text()}."
    )
    console.found(
        {
            "run": str(run.folder),
            "framework": here.framework,
            "precision": here.precision,
            "images": evaluation.images,
            "test_loss": evaluation.loss.tolist(),
            "test_error": evaluation.error.tolist(),
            "recorded": {name: run.result[name] for name in ("test_loss", "test_error")},
            "agrees": evaluation.agrees.tolist(),
        }
    )
