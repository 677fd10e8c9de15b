"""What the package's extras install: asked for where the first module needs it."""

from __future__ import annotations

from importlib.util import find_spec

NEEDED: dict[
    str, tuple[str, tuple[str, ...], str]
] = {  # extra: (what it is called, its modules, how to install it)
    "torch": ("PyTorch", ("torch",), "pip install 'loss-balance[torch]'"),
    "jax": ("JAX and Flax", ("jax", "flax"), "pip install 'loss-balance[jax]'"),
    "tensorflow": (
        "Keras 3 and TensorFlow",
        ("keras",),  # that TensorFlow is there too is Keras' affair: it has other backends
        "pip install 'loss-balance[tensorflow]', or [tensorflow-cpu] without a GPU",
    ),
    "lightning": ("Lightning", ("lightning",), "pip install lightning"),
    "pytorch_lightning": ("Lightning", ("pytorch_lightning",), "pip install pytorch-lightning"),
    "transformers": ("Transformers", ("transformers",), "pip install transformers"),
    "onnx": ("onnxruntime", ("onnxruntime",), "pip install 'loss-balance[onnx]'"),
    "export": (
        "onnx, onnxscript and onnxruntime",
        ("onnx", "onnxscript", "onnxruntime"),
        "pip install 'loss-balance[export]'",
    ),
    "jax-export": ("flatbuffers", ("flatbuffers",), "pip install 'loss-balance[export]'"),
    "experiments": (
        "its extra",
        ("typer", "rich"),
        "pip install 'loss-balance[experiments]'",
    ),
    "serve": (
        "its extra",
        ("starlette", "uvicorn", "prometheus_client", "python_multipart"),
        "pip install 'loss-balance[experiments,serve]'",
    ),
}


def require(extra: str, user: str) -> None:
    """ImportError unless what `extra` installs is there; nothing is imported.

    Args:
        extra: one of NEEDED.
        user: who needs it, as the message names it.
    """
    name, modules, command = NEEDED[extra]
    if any(find_spec(module) is None for module in modules):
        raise ImportError(f"{user} needs {name}: {command}")
