"""Three tasks of very different scale on scikit-learn's digits, in JAX with Optax.

python examples/train_jax.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from loss_balance import AdaLoss
from loss_balance.backends.jax import balance, export_state, import_state, init

NAMES = ("digit", "ink", "picture")
SCHEME = AdaLoss(3)
OPTIMIZER = optax.adam(3e-3)


def fresh(key: jax.Array) -> dict[str, Any]:
    """One trunk; which digit it is, how much ink it has, and the picture itself."""
    sizes = {"trunk": 64, "digit": 10, "ink": 1, "picture": 64}
    keys = jax.random.split(key, len(sizes))
    return {
        name: {"kernel": jax.random.normal(k, (64, n)) / 8, "bias": jnp.zeros(n)}
        for k, (name, n) in zip(keys, sizes.items(), strict=True)
    }


def losses_of(parameters: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
    """One scalar a task; the ink's is thousands of times the digit's."""

    def dense(name: str, x: jax.Array) -> jax.Array:
        return x @ parameters[name]["kernel"] + parameters[name]["bias"]

    hidden = jax.nn.relu(dense("trunk", x))
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    return {
        "digit": cross_entropy(dense("digit", hidden), y).mean(),
        "ink": ((dense("ink", hidden) - x.sum(axis=1, keepdims=True)) ** 2).mean(),
        "picture": ((dense("picture", hidden) - x) ** 2).mean(),
    }


@jax.jit
def step(parameters: Any, optimizer: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
    """One step of training; `balance` stands in place of the sum of the losses."""

    def total(parameters: Any) -> Any:
        losses = losses_of(parameters, x, y)
        weighted, new = balance(losses, state, SCHEME, names=NAMES)
        return weighted, (new, losses)

    gradients, (state, losses) = jax.grad(total, has_aux=True)(parameters)
    updates, optimizer = OPTIMIZER.update(gradients, optimizer)
    return optax.apply_updates(parameters, updates), optimizer, state, losses


def main() -> None:
    """Trains, saves, and goes on from the file."""
    digits = load_digits()
    x, y = jnp.asarray(digits.data, jnp.float32), jnp.asarray(digits.target)
    parameters = fresh(jax.random.key(0))
    optimizer, state = OPTIMIZER.init(parameters), init(SCHEME)
    order = np.random.default_rng(0)
    losses: dict[str, jax.Array] = {}
    for epoch in range(20):
        for batch in order.permutation(len(x))[:1792].reshape(-1, 128):
            parameters, optimizer, state, losses = step(
                parameters, optimizer, state, x[batch], y[batch]
            )
        if epoch % 5 == 4:
            shown = "  ".join(f"{name} {losses[name]:.3f}" for name in NAMES)
            print(f"epoch {epoch + 1}: {shown}")
    for name, weight in zip(NAMES, state.weights.tolist(), strict=True):
        print(f"loss_weight/{name} {weight:.4f}")

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "balance.npz")
        np.savez(file, **export_state(state, SCHEME, NAMES))
        with np.load(file) as arrays:
            restored = import_state(arrays, SCHEME, names=NAMES)
    same = bool((restored.weights == state.weights).all())
    print(f"the weights of the losses came back: {same}")


if __name__ == "__main__":
    main()
