"""Three tasks of very different scale on scikit-learn's digits, in Keras, with `fit`.

python examples/train_keras.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits

from loss_balance import AdaLoss
from loss_balance.backends.keras import balance_model


def many_heads() -> keras.Model:
    """One trunk; which digit it is, how much ink it has, and the picture itself."""
    x = keras.Input((64,))
    hidden = keras.layers.Dense(64, activation="relu")(x)
    heads = {"digit": 10, "ink": 1, "picture": 64}
    return keras.Model(x, [keras.layers.Dense(n, name=name)(hidden) for name, n in heads.items()])


def main() -> None:
    """Trains, saves, and goes on from the file."""
    keras.utils.set_random_seed(0)
    digits = load_digits()
    x = digits.data.astype(np.float32)
    targets = [digits.target, x.sum(axis=1, keepdims=True), x]

    model = balance_model(many_heads(), AdaLoss(3))
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss=[cross_entropy, "mse", "mse"])
    history = model.fit(x, targets, epochs=20, batch_size=128, verbose=0).history
    for epoch in (4, 9, 14, 19):
        names = ("digit", "ink", "picture")
        shown = "  ".join(f"{name} {history[f'{name}_loss'][epoch]:.3f}" for name in names)
        print(f"epoch {epoch + 1}: {shown}")
    for name in (name for name in history if name.startswith("loss_weight")):
        print(f"{name} {history[name][-1]:.4f}")

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.keras")
        model.save(file)
        restored = keras.models.load_model(file)
    before, after = (m.evaluate(x, targets, verbose=0, return_dict=True) for m in (model, restored))
    same = bool(np.isclose(before["loss"], after["loss"]))
    print(f"the weights of the losses came back with the model: {same}")


if __name__ == "__main__":
    main()
