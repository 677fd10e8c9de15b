"""`balance_model`: `compile` and `fit` of any Keras model with several losses, in balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops
from keras.src.trainers.compile_utils import get_loss  # how compile() itself reads a loss

from loss_balance.backends.interface import scheme_config, scheme_from_config
from loss_balance.backends.keras_layer import Balancer
from loss_balance.backends.keras_ops import replicas
from loss_balance.base import Scheme

Seen = list[tuple[str | None, Any]]  # (key in the user's dict of losses, value)
_seen: ContextVar[Seen | None] = ContextVar("seen", default=None)  # replicas are threads


def balance_model(
    model: keras.Model, scheme: Scheme | int, names: Sequence[str] | None = None
) -> BalancedModel:
    """A model with the same outputs whose losses `fit` adds up with the scheme's weights.

        model = balance_model(model, AdaLoss(3))
        model.compile(optimizer="adam", loss=[loss1, loss2, loss3])
        model.fit(x, [y1, y2, y3])

    It shares `model`'s layers and weights: train it, then use either. Import this module before
    `keras.saving.load_model`. Metrics, callbacks,
    `sample_weight`, regularisers (added unweighted) and saving work as they did. The logs hold each
    loss unweighted, as Keras has it, and `loss_weight/<output>`, its mean weight over the epoch.
    `evaluate` uses the weights as they are and leaves them so.

    Args:
        model: any Keras model; it need not be compiled.
        scheme: a `Scheme` for its losses in the order of the outputs; an int n means `AdaLoss(n)`.
        names: of the losses, default: the model's `output_names` if these are as many, else 0, 1,
            ... They give a dict of losses its order.
    """
    return BalancedModel(model, scheme, names)


@keras.saving.register_keras_serializable(package="loss_balance")
class BalancedModel(keras.Model):
    """What `balance_model` makes: `model` holds the given one, `balancer` the state."""

    def __init__(
        self,
        model: keras.Model,
        scheme: Scheme | int,
        names: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        # The policy decides on loss scaling; the inputs are for `model` to cast.
        super().__init__(name=name, dtype=model.dtype_policy, autocast=False)
        self.model = model
        self.balancer = Balancer(scheme, names=names)
        if names is None:
            outputs = getattr(model, "output_names", [])
            if len(outputs) == self.balancer.scheme.num_losses:
                self.balancer.names = tuple(outputs)
        self.shown_weights = WeightMetric(self.balancer)
        self.built = model.built

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The outputs of `model`."""
        return self.model(inputs, training=training)

    @property
    def output_names(self) -> Any:
        """Those of `model`, if it has them: Keras names losses and metrics after them."""
        return self.model.output_names

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        **options: Any,
    ) -> None:
        """As `keras.Model.compile`.

        Raises:
            ValueError: `loss_weights` are given (the scheme sets them), or the losses are not those
                the scheme weighs.
        """
        if loss_weights is not None:
            raise ValueError(
                "loss_weights are what the scheme sets: use Static(weights) for weights of your "
                f"own or AdaLoss(..., final_weight=...) with it, got {loss_weights}"
            )
        super().compile(optimizer=optimizer, loss=self._tapped(loss), **options)

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built and self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The weighted sum of the losses, and the layers' own losses; updates in training."""
        seen: Seen = []
        token = _seen.set(seen)
        try:  # the sum of the unweighted losses is dropped; each is logged on the way
            super().compute_loss(x, y, y_pred, sample_weight, training)
        finally:
            _seen.reset(token)
        # Keras divides each loss by the number of replicas; the state is to see the loss itself.
        share = 1 / replicas()
        losses = [value / share for value in self._in_order(seen, y_pred)]
        total = self.balancer(losses, training=training) * share
        self.shown_weights.update_state(self.balancer.loss_weights)
        for own in self.losses:
            total = total + ops.sum(ops.cast(own, total.dtype))
        return total

    def _tapped(self, loss: Any) -> Any:
        """The losses, each handing its value over when it is computed."""
        if not isinstance(loss, Mapping):
            return keras.tree.map_structure(lambda one: Tap.on(one, None), loss)
        names = self.balancer.names or ()
        keys = [key for key, one in loss.items() if one is not None]
        if set(keys) != set(names):
            raise ValueError(
                f"the losses must have exactly the names {list(names)}, got {keys}: "
                "balance_model(..., names=[...]) says which they are and their order"
            )
        return {key: Tap.on(one, key) for key, one in loss.items()}

    def _in_order(self, seen: Seen, y_pred: Any) -> list[Any]:
        by_name = {key: value for key, value in seen if key is not None}
        if by_name:
            return [by_name[name] for name in self.balancer.names or ()]
        if isinstance(y_pred, Mapping):
            raise ValueError("a model whose outputs are a dict needs a dict of losses, got one")
        return [value for _, value in seen]

    def get_config(self) -> dict[str, Any]:
        names = self.balancer.names
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            "scheme": scheme_config(self.balancer.scheme),
            "names": None if names is None else list(names),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> BalancedModel:
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        rest = {"model": model, "scheme": scheme_from_config(config["scheme"])}
        return cls(**{**config, **rest})


@keras.saving.register_keras_serializable(package="loss_balance")
class Tap(keras.losses.Loss):
    """A loss as it is, but `compute_loss` sees its value: Keras keeps nothing but the sum."""

    def __init__(self, loss: Any, key: str | None = None, name: str | None = None) -> None:
        shown = loss if isinstance(loss, str) else getattr(loss, "name", None)
        super().__init__(name=name or shown or getattr(loss, "__name__", None))
        self.loss = loss
        self.key = key

    @classmethod
    def on(cls, loss: Any, key: str | None) -> Any:
        """None stays None; a tap, from a config, is not tapped again."""
        return loss if loss is None or isinstance(loss, Tap) else cls(loss, key)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        value = get_loss(self.loss, y_true, y_pred)(y_true, y_pred, sample_weight)
        seen = _seen.get()
        if seen is not None:
            seen.append((self.key, value))
        return value

    def get_config(self) -> dict[str, Any]:
        loss = keras.saving.serialize_keras_object(self.loss)
        return {"loss": loss, "key": self.key, "name": self.name}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Tap:
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


class WeightMetric(keras.metrics.Metric):
    """Mean of each loss weight over an epoch, as `loss_weight/<name>`."""

    def __init__(self, balancer: Balancer) -> None:
        super().__init__(name="loss_weights", dtype="float32")
        count = balancer.scheme.num_losses
        self.labels = balancer.names or tuple(str(i) for i in range(count))
        self.total = self.add_weight(shape=(count,), initializer="zeros", name="total")
        self.count = self.add_weight(shape=(), initializer="zeros", name="count")

    def update_state(self, weights: Any) -> None:
        self.total.assign_add(ops.cast(weights, self.dtype))
        self.count.assign_add(1.0)

    def result(self) -> dict[str, Any]:
        means = ops.divide_no_nan(self.total, self.count)
        return {f"loss_weight/{label}": means[i] for i, label in enumerate(self.labels)}
