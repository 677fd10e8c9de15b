"""`loss-balance predict`: one image, one trained network, one deadline."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from loss_balance import anytime
from loss_balance.experiments.commands import options as opts
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.deployment import exported
from loss_balance.experiments.runs.deployment.exported import Exported
from loss_balance.experiments.runs.trained import Trained, read
from loss_balance.experiments.terminal import console
from loss_balance.experiments.training import feed

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


@opts.shows(progress=False)
def predict(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a finished run, or of its export to onnx."),
    ],
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE",
            help="An image file, a .npy of the network's input shape in the training images' "
            "values, or test:17 for an image of the test split.",
        ),
    ],
    deadline: Annotated[
        str | None, typer.Option(help="Such as 20ms or 0.5s.", show_default="none")
    ] = None,
) -> None:
    """Answer for one image by a deadline: the class, its exit, and the time.

    The clock starts when network and image are loaded and the network has warmed up.

    An exit that would overrun the deadline is not begun; only the first one is always computed.
    """
    limit = None if deadline is None else seconds(deadline)
    show(answer_image(run, image, limit), limit)


def seconds(text: str) -> float:
    """Seconds from a text like `20ms` or `0.5s`.

    Raises:
        UserError: it is no such time.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+) ?(s|ms|us)", text.strip())
    if match is None:
        raise UserError(f"--deadline must be a time like 20ms or 0.5s, got {text!r}")
    return float(match[1]) * SECONDS[match[2]]


TIMED_RUNS = 10  # runs whose median tells which exit would overrun


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came, and when."""

    label: int
    class_names: tuple[str, ...]
    probability: float
    exit: int  # counted from 0
    exits: int
    elapsed: float  # seconds until the answer was there
    returned: float  # seconds until the call came back
    late: bool
    truth: int | None  # the label of a test image

    def name(self, label: int) -> str:
        """The name of a class, its number where names are not known."""
        return self.class_names[label] if self.class_names else str(label)


def answer_image(folder: Path, image: str, deadline: float | None) -> Reply:
    """Answers for the image by the deadline, in seconds.

    The latest answer in time counts; for a run with held-out images the best one by their error, as
    in an ensemble.

    Raises:
        UserError: no such run or image, or they do not fit.
    """
    run = exported.read(folder) if exported.is_one(folder) else read(folder)
    x, truth = _image(run, image)
    times = run.times(TIMED_RUNS)
    start = time.monotonic()
    found = anytime.predict(
        run.network.anytime(x), deadline, expected_times=times, errors=run.validation_error
    )
    returned = time.monotonic() - start
    if found.failure is not None:
        raise found.failure
    assert found.value is not None  # nothing cancels, so the first exit answers
    assert found.exit is not None
    return Reply(
        label=int(found.value[0].argmax()),
        class_names=run.preparation.class_names,
        probability=float(anytime.top_probability(found.value)[0]),
        exit=found.exit,
        exits=run.num_exits,
        elapsed=found.elapsed,
        returned=returned,
        late=found.late,
        truth=truth,
    )


def show(answer: Reply, deadline: float | None) -> None:
    """One line for the answer, one for the time."""
    verdict = ""
    if answer.truth is not None:
        right = answer.truth == answer.label
        verdict = " (right)" if right else f" (wrong: it is {answer.name(answer.truth)})"
    console.say(
        f"class {answer.name(answer.label)}, probability {answer.probability:.3f}{verdict}",
    )
    limit = "no deadline" if deadline is None else f"deadline {1000 * deadline:g} ms"
    late = ", late: not even the first exit was in time" if answer.late else ""
    console.say(
        f"exit {answer.exit + 1} of {answer.exits} after {1000 * answer.elapsed:.2f} ms, returned "
        f"after {1000 * answer.returned:.2f} ms, {limit}{late}",
    )
    name = answer.name(answer.label)
    console.found({"class": name, "deadline": deadline, **asdict(answer)})


def _image(run: Trained | Exported, image: str) -> tuple[NDArray[np.float32], int | None]:
    """(standardised image (1, H, W, C), its label if it is a test image)."""
    match = re.fullmatch(r"test:(\d+)", image)
    if match is None:
        return run.preparation.open(Path(image), run.input_shape), None
    index = int(match[1])
    data = run.test_data()
    count = len(data.y_test)
    if index >= count:
        raise UserError(f"IMAGE must be test:0 to test:{count - 1}, got {image}")
    part = slice(index, index + 1)
    pixels, labels = next(iter(feed.evaluation(data, data.x_test[part], data.y_test[part])))
    return run.preparation.standardise(pixels), int(labels[0])
