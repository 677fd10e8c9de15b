"""Where an exit branches off the trunk: forward the identity, backward a weighted mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from loss_balance.backends.interface import exit_index
from loss_balance.backends.keras.ops import XP, loaded_once, loading
from loss_balance.backends.keras.state import StateLayer
from loss_balance.equilibrium import STRENGTH, TEMPERATURE, shares, strength_at
from loss_balance.equilibrium import guidance as guidance_of_exits
from loss_balance.schemes.averaging import Schedule


class BranchingLayer(StateLayer):
    """The part of the balancer that stands where exits branch off the trunk.

    Attributes:
        equilibrium: whether there are forks, and the total is the plain sum of the losses.
        pull: the power of the weights that the trunk's shares are of.
    """

    equilibrium: bool
    pull: float
    priorities: tuple[float, ...] | None

    def fork(self, features: Any, index: int | str, probe: Any = None) -> tuple[Any, Any]:
        """(what exit `index` reads, what goes on to deeper ones); both are `features`.

        ::

            branch, x = balance.fork(x, i)
            logits.append(head(branch))

        Backward the gradients from both are mixed, with the weights in force when this was called,
        so that what comes before has the weighted mean of the gradients of all losses from this
        exit on (`loss_balance.equilibrium`). To be called for every exit, the last one too, in the
        order of the losses. In a functional model it becomes a layer. On TensorFlow leave it out of
        what is recomputed, or that reads the weights again when they have moved.

        Args:
            features: any structure of tensors, such as a list of maps.
            index: of the exit's loss, from 0, or its name.
            probe: shape (num_losses,), zeros to differentiate by: their gradient becomes the norms
                of the exits' gradients, for `norms` of the next call (`GradientNorm`).

        Raises:
            ValueError: there is no such exit, or the balancer does not work in equilibrium.
        """
        place = exit_index(index, self.names, self.scheme.num_losses, equilibrium=self.equilibrium)
        leaves = keras.tree.flatten(features)
        if any(isinstance(x, keras.KerasTensor) for x in leaves):
            pair: tuple[Any, Any] = Fork(self, place)(features)
            return pair
        weights = ops.stop_gradient(self.loss_weights)
        priorities = self.priorities
        if priorities is not None:
            priorities = ops.convert_to_tensor(priorities, weights.dtype)
        own, deeper = shares(weights, XP, self.pull, priorities)
        return _mixed(features, own[place], deeper[place], None if probe is None else probe[place])

    def guidance(
        self,
        logits: Sequence[Any] | Any,
        strength: float | Schedule = STRENGTH,
        temperature: float = TEMPERATURE,
    ) -> Any:
        """What to add to the total so that early exits learn from the last one, a scalar.

        ::

            loss = balance.guidance(logits) + balance(losses)

        The sum of `loss_balance.equilibrium.guidance` over the exits, in float32 or wider, by the
        weights that the state has: before the balancer is called those of its forks.

        Args:
            logits: of each exit, (..., classes); a sequence or stacked.
            strength: g, a number or a schedule of the balancer's updates, of (step, xp, dtype):
                `LinearSchedule(0.0, 1.0, steps)` teaches late, when the last exit knows more.
            temperature: tau.
        """
        given = [ops.convert_to_tensor(logits[i]) for i in range(self.scheme.num_losses)]
        dtype = keras.backend.result_type(given[-1].dtype, "float32")
        wide = [ops.cast(x, dtype) for x in given]
        wide[-1] = ops.stop_gradient(wide[-1])
        weights = ops.cast(ops.stop_gradient(self.loss_weights), dtype)
        share = strength_at(strength, ops.copy(self.state_step), XP, dtype)
        return ops.sum(guidance_of_exits(wide, weights, share, temperature, XP))


@keras.saving.register_keras_serializable(package="loss_balance")
class Fork(keras.Layer):
    """`balancer.fork(features, index)` in a functional model."""

    def __init__(self, balancer: BranchingLayer, index: int, **options: Any) -> None:
        super().__init__(**options)
        self.balancer = balancer
        self.index = index
        self.built = True

    def call(self, features: Any) -> tuple[Any, Any]:
        """The pair, of tensors."""
        return self.balancer.fork(features, self.index)

    def compute_output_spec(self, features: Any) -> tuple[Any, Any]:
        return _likewise(features), _likewise(features)

    def get_config(self) -> dict[str, Any]:
        balancer = keras.saving.serialize_keras_object(self.balancer)
        return {**super().get_config(), "balancer": balancer, "index": self.index}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Fork:
        """The layer, with the one balancer that all forks of a loaded model share.

        Raises:
            ValueError: outside of a loading, where each would have a balancer of its own.
        """
        if not loading():
            raise ValueError(
                "a model with forks must be copied by saving and loading it, for the forks share "
                "one balancer, got a config alone"
            )
        return cls(**{**config, "balancer": loaded_once(config["balancer"])})


def forked(model: Any) -> BranchingLayer | None:
    """The balancer of the forks in a functional model, None where there are none.

    Raises:
        ValueError: they are of several.
    """
    found = {id(x.balancer): x.balancer for x in model._flatten_layers() if isinstance(x, Fork)}
    if len(found) > 1:
        raise ValueError(f"a model's forks must be of one balancer, got {len(found)}")
    return next(iter(found.values()), None)


def _likewise(features: Any) -> Any:
    return keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype), features)


def _mixed(features: Any, own: Any, deeper: Any, probe: Any) -> tuple[Any, Any]:
    """(what the exit reads, what goes on); each backend has a backward pass of its own."""
    backend = keras.backend.backend()
    if backend == "torch":
        from loss_balance.backends.torch import forks as in_torch

        return in_torch.mixed(features, own, deeper, probe)
    if backend == "jax":
        from loss_balance.backends.jax import forks as in_jax

        return in_jax.mixed(features, own, deeper, probe)
    return _mixed_in_tensorflow(features, own, deeper, probe)


def _mixed_in_tensorflow(features: Any, own: Any, deeper: Any, probe: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def twice(*given: Any) -> Any:
        maps = given[:count]  # and behind them the probe, if there is one

        def backward(*gradients: Any) -> list[Any]:
            branch, onward = gradients[:count], gradients[count:]
            pairs = zip(branch, onward, strict=True)
            mean = [tf.cast(own, b.dtype) * b + tf.cast(deeper, o.dtype) * o for b, o in pairs]
            norms = [tf.linalg.global_norm([tf.cast(g, p.dtype) for g in branch]) for p in probes]
            return [*mean, *norms]

        return [tf.identity(x) for x in (*maps, *maps)], backward

    leaves = keras.tree.flatten(features)
    places = [i for i, x in enumerate(leaves) if x.dtype.is_floating]
    count, probes = len(places), [] if probe is None else [probe]
    found = twice(*(leaves[i] for i in places), *probes)
    branch, onward = list(leaves), list(leaves)
    for i, place in enumerate(places):
        branch[place], onward[place] = found[i], found[i + count]
    like = keras.tree.pack_sequence_as
    return like(features, branch), like(features, onward)
