"""What a run computes in: framework, device, precision, compiled or not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any

from loss_balance.experiments.errors import UserError

FRAMEWORKS = {"torch": "torch", "tensorflow": "keras", "jax": "jax"}  # and our module for each
DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")
STRATEGIES = ("ddp", "fsdp")
BATCH_NORMS = ("global", "local")


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
        batch_norm: over several devices, "global" is over the whole batch as on one, "local" over
            each device's part.
        devices: how many share each batch. A run may go on with another number of them, and ends in
            the same numbers but for rounding.
        strategy: in PyTorch, what each of several devices holds: all ("ddp") or a part ("fsdp").
    """

    framework: str = "torch"
    device: str = "cpu"
    precision: str = "float32"
    compiled: bool = False
    batch_norm: str = "global"
    devices: int = field(default=1, compare=False)
    strategy: str = field(default="ddp", compare=False)

    def __post_init__(self) -> None:
        for name, value, known in (
            ("framework", self.framework, FRAMEWORKS),
            ("device", self.device, DEVICES),
            ("precision", self.precision, PRECISIONS),
            ("batch norm", self.batch_norm, BATCH_NORMS),
            ("strategy", self.strategy, STRATEGIES),
        ):
            if value not in known:
                raise UserError(f"unknown {name} {value!r}: choose from {', '.join(known)}")
        if self.devices < 1:
            raise UserError(f"--devices must be at least 1, got {self.devices}")
        if self.strategy == "fsdp" and self.framework != "torch":
            raise UserError(f"--strategy fsdp is of torch, not of {self.framework}")
        if self.batch_norm == "local" and self.framework == "jax":
            raise UserError("--batch-norm local is of torch and tensorflow, not of jax")
        if self.compiled and self.devices > 1 and self.framework != "jax":
            raise UserError(
                f"--compile is for one device in {self.framework}, got --devices {self.devices}"
            )

    def config(self) -> dict[str, Any]:
        """What the numbers of a run follow from: not how many devices it had, nor how."""
        kept = asdict(self)
        return {k: v for k, v in kept.items() if k not in ("devices", "strategy")}


def choose_engine(
    framework: str,
    device: str,
    precision: str | None = None,
    compiled: bool | None = None,
    devices: int = 1,
    **more: str,
) -> Engine:
    """An engine with the defaults of its device: bfloat16 and compiled on a GPU, else neither.

    Several devices of PyTorch or TensorFlow are not compiled. `more` are `strategy` and
    `batch_norm`.

    Raises:
        UserError: a name is unknown, or the framework is not installed.
    """
    gpu = device == "cuda"
    chosen = Engine(
        framework,
        device,
        precision or ("bfloat16" if gpu else "float32"),
        gpu and (devices == 1 or framework == "jax") if compiled is None else compiled,
        devices=devices,
        **more,
    )
    check_installed(framework)
    return chosen


def check_installed(framework: str) -> None:
    """UserError if the framework is not there; it is not imported."""
    if find_spec(framework) is None:
        raise UserError(f"{framework} is not installed: pip install 'loss-balance[{framework}]'")
