"""What a run was computed with: versions and hardware, kept in its folder."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import loss_balance
from loss_balance.experiments.training.engine import Engine

PACKAGES: dict[str, tuple[str, ...]] = {
    "torch": ("torch",),
    "tensorflow": ("tensorflow", "tensorflow-cpu", "keras"),
    "jax": ("jax", "jaxlib", "flax", "optax"),
}
COMMON = ("numpy",)


def environment(engine: Engine) -> dict[str, Any]:
    """JSON for `environment.json`; the framework is loaded already."""
    names = (*COMMON, *PACKAGES[engine.framework])
    found = {name: known for name in names if (known := _version(name))}
    return {
        "python": platform.python_version(),
        "packages": {"loss-balance": loss_balance.__version__, **found},
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "accelerator": _accelerator(engine),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Its name, which only Linux keeps in a file."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _accelerator(engine: Engine) -> str | None:
    """The first GPU's name, where the run uses one."""
    if engine.device != "cuda":
        return None
    if engine.framework == "torch":
        import torch

        return str(torch.cuda.get_device_name())
    if engine.framework == "jax":
        import jax

        return str(jax.devices()[0].device_kind)
    import tensorflow as tf

    (first, *_) = tf.config.list_physical_devices("GPU")
    return str(tf.config.experimental.get_device_details(first).get("device_name"))
