"""What a run computes in: framework, device, precision, compiled or not."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from loss_balance.experiments.errors import UserError

FRAMEWORKS = {"torch": "torch", "tensorflow": "keras", "jax": "jax"}  # and our module for each
DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Engine:
    """Part of a run: with another engine its numbers differ in the last digits or more.

    Args:
        framework: one of FRAMEWORKS.
        device: one of DEVICES; "cuda" is any GPU that the framework sees.
        precision: of convolutions and matrix products. Parameters, batch norm's statistics, losses
            and the balancer stay in float32.
        compiled: compile the training step, in PyTorch. JAX and TensorFlow always do; TensorFlow
            then by XLA.
    """

    framework: str = "torch"
    device: str = "cpu"
    precision: str = "float32"
    compiled: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("framework", self.framework, FRAMEWORKS),
            ("device", self.device, DEVICES),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise UserError(f"unknown {name} {value!r}: choose from {', '.join(known)}")


def choose_engine(
    framework: str, device: str, precision: str | None = None, compiled: bool | None = None
) -> Engine:
    """An engine with the defaults of its device: bfloat16 and compiled on a GPU, else neither.

    Raises:
        UserError: a name is unknown, or the framework is not installed.
    """
    gpu = device == "cuda"
    chosen = Engine(
        framework,
        device,
        precision or ("bfloat16" if gpu else "float32"),
        gpu if compiled is None else compiled,
    )
    check_installed(framework)
    return chosen


def check_installed(framework: str) -> None:
    """UserError if the framework is not there; it is not imported."""
    if find_spec(framework) is None:
        raise UserError(f"{framework} is not installed: pip install 'loss-balance[{framework}]'")
