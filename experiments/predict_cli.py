"""The options of `loss-balance predict`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from loss_balance.experiments import predict_command
from loss_balance.experiments.errors import UserError

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
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
    """Answer for one image by a deadline: the class, the exit that gave it, and the time.

    The clock starts when network and image are loaded and the network has warmed up.

    An exit that would overrun the deadline is not begun; only the first one is always computed.
    """
    limit = None if deadline is None else seconds(deadline)
    predict_command.show(predict_command.predict(run, image, limit), limit)


def seconds(text: str) -> float:
    """From `20ms` or `0.5s`.

    Raises:
        UserError: it is no such time.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+) ?(s|ms|us)", text.strip())
    if match is None:
        raise UserError(f"--deadline must be a time like 20ms or 0.5s, got {text!r}")
    return float(match[1]) * SECONDS[match[2]]
