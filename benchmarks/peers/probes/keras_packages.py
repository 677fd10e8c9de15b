"""What is published for Keras: softadapt's callback beside `balance_model`, on any backend.

Two questions: do the weights act, that is: is another network trained than without them; and does a
saved and loaded model go on as one that was not interrupted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.peers.findings import Finding, failed
from loss_balance.backends.keras import balance_model

TABLE = "Keras"
EPOCHS = 3  # before a model is saved, and again after
Callbacks = list[Any]


def network() -> Any:
    """Two outputs."""
    keras.utils.set_random_seed(0)
    x = keras.Input((8,))
    h = keras.layers.Dense(16, activation="relu")(x)
    return keras.Model(x, [keras.layers.Dense(1, name=name)(h) for name in ("a", "b")])


def compiled(*, balanced: bool) -> Any:
    """Ready to fit."""
    model = balance_model(network(), 2) if balanced else network()
    model.compile(keras.optimizers.SGD(0.01), ["mse", "mse"])
    return model


def no_callbacks(_: Path) -> Callbacks:
    """For those that need none."""
    return []


def softadapt(folder: Path) -> Callbacks:
    """The callback, called as its README does: once an epoch, with a folder for its state."""
    from softadapt.callbacks import AdaptiveLossCallback

    return [AdaptiveLossCallback(components=["a", "b"], backup_dir=str(folder / "backup"))]


WAYS: dict[str, tuple[bool, Callable[[Path], Callbacks]]] = {
    "balance_model(AdaLoss)": (True, no_callbacks),
    "softadapt AdaptiveLossCallback": (False, softadapt),
}


def fit(model: Any, callbacks: Callbacks, start: int, stop: int) -> None:
    """Some epochs, on the same batches in the same order."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 8)).astype("float32")
    y = [scale * x[:, k : k + 1] + scale for k, scale in enumerate((3.0, 0.3))]
    options = {"initial_epoch": start, "epochs": stop, "batch_size": 16}
    model.fit(x, y, callbacks=callbacks, shuffle=False, verbose=0, **options)


def outputs(model: Any) -> Any:
    """What tells one trained network from another."""
    return np.concatenate([np.ravel(w) for w in model.get_weights() if np.size(w) > 2])


def acts(*, balanced: bool, callbacks: Callable[[Path], Callbacks]) -> str:
    """Whether the network is another one than without it."""
    plain = compiled(balanced=False)
    fit(plain, [], 0, 2 * EPOCHS)
    with tempfile.TemporaryDirectory() as folder:
        model = compiled(balanced=balanced)
        fit(model, callbacks(Path(folder)), 0, 2 * EPOCHS)
    same = np.array_equal(outputs(model), outputs(plain))
    return "no: the network is as without it" if same else "yes"


def kept(*, balanced: bool, callbacks: Callable[[Path], Callbacks]) -> str:
    """Whether a saved and loaded model goes on bit for bit."""
    whole: list[Any] = []
    found: list[Any] = []
    for interrupted in (False, True):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            model, called = compiled(balanced=balanced), callbacks(folder)
            fit(model, called, 0, EPOCHS)
            if interrupted:
                model.save(folder / "model.keras")
                model = keras.saving.load_model(folder / "model.keras")
                called = callbacks(folder)
            fit(model, called, EPOCHS, 2 * EPOCHS)
            (found if interrupted else whole).append(outputs(model))
    if np.array_equal(whole[0], found[0]):
        return "yes"
    off = np.linalg.norm(found[0] - whole[0]) / np.linalg.norm(whole[0])
    return f"no: network {100 * off:.2g} % off"


def probe() -> Iterator[Finding]:
    """Two cells a way."""
    backend = keras.backend.backend()
    for title, (balanced, callbacks) in WAYS.items():
        for column, ask in (("weights act", acts), ("a saved run goes on", kept)):
            try:
                text = ask(balanced=balanced, callbacks=callbacks)
            except Exception as error:  # of any package, of any kind: that is the finding
                text = failed(error)
            yield Finding(TABLE, title, f"{column}, {backend}", text)


if __name__ == "__main__":
    for finding in probe():
        print(finding.line(), flush=True)
