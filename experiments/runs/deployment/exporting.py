"""A finished run's network written in a format, in the framework that writes it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.trained import Trained, TrainedNetwork
from loss_balance.reference_models.exports import Written, of_spec
from loss_balance.reference_models.exports.about import FILE, STATISTICS
from loss_balance.reference_models.exports.writing import check_free

TARGETS = {  # the framework that writes each, and its module and function
    "onnx": ("torch", "loss_balance.reference_models.torch.exporting", "to_onnx"),
    "torch": ("torch", "loss_balance.reference_models.torch.exporting", "to_torch"),
    "savedmodel": (
        "tensorflow",
        "loss_balance.reference_models.keras.exporting",
        "to_savedmodel",
    ),
    "jax": ("jax", "loss_balance.reference_models.jax.exporting", "to_jax"),
}


def export_run(run: Trained, to: str, folder: Path, *, overwrite: bool) -> Written:
    """Writes the run's network in the format `to`, a key of TARGETS.

    Raises:
        UserError: the folder is taken, what writes the format is not installed, the run is damaged,
            or a file does not give the network's logits.
    """
    framework, module, function = TARGETS[to]
    _check_writable(to, framework, folder, overwrite=overwrite)
    about = of_spec(
        run.spec,
        validation_error=run.validation_error,
        test_error=None if run.source.validation else run.test_error,
        class_names=run.preparation.class_names,
    )
    weights = run.weights()
    net = TrainedNetwork(run.spec, framework, weights).net
    write = getattr(import_module(module), function)
    try:
        written: Written = write(
            net, folder, about, statistics=run.folder / STATISTICS, overwrite=overwrite
        )
    except (ImportError, ValueError, RuntimeError) as error:
        raise UserError(str(error)) from error
    return written


def _check_writable(to: str, framework: str, folder: Path, *, overwrite: bool) -> None:
    if find_spec(framework) is None:
        extras = f"{framework},export" if to in ("onnx", "jax") else framework
        raise UserError(
            f"--to {to} needs {framework}, whatever the run was trained in: "
            f"pip install 'loss-balance[{extras}]'"
        )
    if (folder / FILE).is_file() and not overwrite:
        raise UserError(
            f"{folder} holds an export already: discard it with --overwrite, or choose another "
            "--output"
        )
    try:
        check_free(folder, overwrite=overwrite)
    except ValueError as error:
        raise UserError(str(error)) from error
