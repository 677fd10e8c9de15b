"""`balance_model`: `compile` and `fit` of any Keras model with several losses, in balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import keras
from keras import ops

from loss_balance.backends.interface import scheme_config, scheme_from_config
from loss_balance.backends.keras.forks import forked
from loss_balance.backends.keras.layer import Balancer
from loss_balance.backends.keras.losses import Found, Losses, output_labels
from loss_balance.backends.keras.metrics import BalanceMetric
from loss_balance.backends.keras.ops import mean_over_replicas, on_any_replica, replicas, stack
from loss_balance.backends.logged import keys
from loss_balance.schemes.adaloss import as_scheme
from loss_balance.schemes.base import Scheme

# What `BalancedModel` does Keras' way; a model's own would never run.
KERAS_OWN = (
    *("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics"),
    *("make_train_function", "make_test_function", "make_predict_function"),
    *("fit", "evaluate", "predict"),
)


def balance_model(
    model: keras.Model, scheme: Scheme | int, names: Sequence[str] | None = None, **options: Any
) -> BalancedModel:
    """A model with the same outputs whose losses `fit` adds up with the scheme's weights.

    ::

        model = balance_model(model, AdaLoss(3))
        model.compile(optimizer="adam", loss=[loss1, loss2, loss3])
        model.fit(x, [y1, y2, y3])

    It shares `model`'s layers and weights: train it, then use either. If `model` is compiled, so is
    this one, with the same optimizer, losses and metrics. Import this module before
    `keras.saving.load_model`. Metrics, callbacks, `sample_weight`, regularisers and `add_loss`
    (added unweighted), saving and export work as they did; what `compile` takes as losses stays
    Keras' own matter. A loss whose samples all have weight 0 is absent in that step.

    The logs hold each loss unweighted, as Keras has it, and further `loss_sum`, the unweighted sum
    of the losses; those of an epoch, an evaluation and `train_on_batch` also `loss_weight/<name>`,
    its mean weight, and `loss_skipped/<name>`, how often it was not finite or negative so far. In
    those of a batch of `fit` they would cost time: there is `model.balancer.metrics()`. `evaluate`
    uses the weights as they are and leaves them so. As `loss` and `val_loss` move with the weights,
    compare models by `val_loss_sum`: in early stopping, checkpoints, learning-rate plateaus and
    tuners.

    Args:
        model: any model of Keras 3 that trains as Keras has it; it need not be compiled.
        scheme: a `Scheme` for its losses; an int n means `AdaLoss(n)`.
        names: of the losses, in the scheme's order: for outputs in a dict their keys ("a/b" for
            nested ones), otherwise the names of the output layers or names of your own. Default:
            all losses in the order of the outputs, a dict's as it was written.
        **options: of `Balancer`, such as the state's `dtype`. With `equilibrium=True` the model
            must fork: its `call` takes an argument `fork`, as the reference networks' do, or it is
            functional and was made with `balancer.fork`, whose balancer is then the one.

    Raises:
        TypeError: not a model of Keras 3.
        ValueError: wrong names; a model with a `train_step` or the like of its own, or compiled
            with `loss_weights`.
    """
    balanced = BalancedModel(model, scheme, names, **options)
    if model.compiled:
        balanced.compile(**model._compile_config.config)
    return balanced


@keras.saving.register_keras_serializable(package="loss_balance")
class BalancedModel(keras.Model):
    """What `balance_model` makes: `model` holds the given one, `balancer` the state."""

    def __init__(
        self,
        model: keras.Model,
        scheme: Scheme | int,
        names: Sequence[str] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        _check_model(model)
        # The policy decides on loss scaling; the inputs are for `model` to cast.
        super().__init__(name=name, dtype=model.dtype_policy, autocast=False)
        self.model = model
        self.balancer = _balancer_for(model, scheme, names=names, **options)
        self._options = options
        self._names_given = names is not None
        if names is None:
            labels = output_labels(model)
            if len(labels) == self.balancer.scheme.num_losses:
                self.balancer.names = labels
        self.record = BalanceMetric(self.balancer.scheme.num_losses)
        self.built = model.built

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The outputs of `model`."""
        forks = {"fork": self.balancer.fork} if _takes_fork(self.model, self.balancer) else {}
        return self.model(inputs, training=training, **forks)

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        *more: Any,
        **options: Any,
    ) -> None:
        """Compiles as `keras.Model.compile` does.

        Raises:
            ValueError: `loss_weights` are given: the scheme sets them.
        """
        if loss_weights is not None:
            raise ValueError(
                "loss_weights are what the scheme sets: use Static(weights) for weights of your "
                f"own or AdaLoss(..., final_weight=...) with it, got {loss_weights}"
            )
        super().compile(optimizer, loss, None, *more, **options)
        if loss is not None:
            self._compile_loss = Losses(loss, output_names=getattr(self, "output_names", None))

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(_without_taps(config)))
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
        """Keras' own, with the weighted sum of the losses for their sum; updates in training."""
        if self._compile_loss is None:
            raise ValueError("balance_model balances the losses of compile(loss=...), got none")
        with self._compile_loss.handing_over() as handed:  # what Keras adds to them is left
            rest = super().compute_loss(x, y, y_pred, sample_weight, training)
        # After it: replicas wait for each other in the balancer, and share the list of `add_loss`.
        declared = getattr(self.model, "output", None)
        found = self._compile_loss.in_order(handed, y_pred, declared)
        return self._balanced(found, training) + rest

    def _balanced(self, found: Found, training: bool) -> Any:
        losses, present = self._in_scheme_order(found)
        if present is not None:
            present = on_any_replica(present)
        # Stacked once, for each operator counts in a small step.
        (stacked, _), count = stack(losses, self.balancer.variable_dtype), replicas()
        if count > 1:  # Keras divides each loss by it; the state is to see the loss itself
            stacked = stacked * count
        total = self.balancer.combine(mean_over_replicas(stacked), present, training=training)
        self.record.update_state(stacked, found.batch, self.balancer.loss_weights)
        return total if count == 1 else total / count

    def _get_metrics_result_or_logs(self, logs: Any) -> dict[str, Any]:
        """The logs of an epoch or an evaluation."""
        return {**super()._get_metrics_result_or_logs(logs), **self._balance_logs()}

    def train_on_batch(self, *args: Any, **options: Any) -> Any:
        found = super().train_on_batch(*args, **options)
        return {**found, **self._balance_logs()} if isinstance(found, dict) else found

    def test_on_batch(self, *args: Any, **options: Any) -> Any:
        found = super().test_on_batch(*args, **options)
        return {**found, **self._balance_logs()} if isinstance(found, dict) else found

    def _balance_logs(self) -> dict[str, float]:
        skipped = ops.convert_to_numpy(self.balancer.copied("skipped"))
        columns = {"weight": self.record.mean_weights(), "skipped": skipped}
        return {
            f"loss_{what}/{key}": float(value)
            for what, values in columns.items()
            for key, value in zip(keys(self.balancer.names, len(values)), values, strict=True)
        }

    def _in_scheme_order(self, found: Found) -> tuple[list[Any], Any]:
        """The losses and which are present; default names are those of what was found."""
        count = self.balancer.scheme.num_losses
        if len(found.losses) != count:
            raise ValueError(
                f"expected {count} losses, got {len(found.losses)}: {list(found.names)}"
            )
        names = (self.balancer.names if self._names_given else None) or found.names
        self.balancer.names = names
        if set(names) != set(found.names):
            if found.keyed or set(names) & set(found.names):
                raise ValueError(
                    f"names must be those of the losses, {list(found.names)}, got {list(names)}"
                )
            return found.losses, found.present  # names of the user's own
        order = [found.names.index(name) for name in names]
        present = found.present
        if present is not None:
            present = ops.stack([present[i] for i in order])
        return [found.losses[i] for i in order], present

    # As `model`, which users had. Not `layers`: the paths in files of weights follow it.

    @property
    def inputs(self) -> Any:
        return self.model.inputs

    @property
    def outputs(self) -> Any:
        return self.model.outputs

    @property
    def input(self) -> Any:
        return self.model.input

    @property
    def output(self) -> Any:
        return self.model.output

    @property
    def output_names(self) -> Any:
        return self.model.output_names

    def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
        return self.model.get_layer(name, index)

    def summary(self, *args: Any, **options: Any) -> None:
        self.model.summary(*args, **options)

    def export(self, *args: Any, **options: Any) -> Any:
        return self.model.export(*args, **options)

    def get_config(self) -> dict[str, Any]:
        names = self.balancer.names
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            "scheme": scheme_config(self.balancer.scheme),
            "names": None if names is None else list(names),
            "name": self.name,
            "options": dict(self._options),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> BalancedModel:
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        return cls(
            model,
            scheme_from_config(config["scheme"]),
            config["names"],
            config["name"],
            **config.get("options", {}),
        )


def _without_taps(config: Any) -> Any:
    """A config of `compile` from a file of before, in which each loss is wrapped in a `Tap`."""
    if isinstance(config, Mapping):
        if config.get("registered_name") == "loss_balance>Tap":
            return config["config"]["loss"]
        return {key: _without_taps(value) for key, value in config.items()}
    return [_without_taps(one) for one in config] if isinstance(config, list) else config


def _balancer_for(model: keras.Model, scheme: Scheme | int, **options: Any) -> Balancer:
    """That of the model's forks, or a new one; ValueError where they do not fit."""
    if as_scheme(scheme).observes == "gradients":
        raise ValueError(
            f"a scheme of losses is needed, for `fit` keeps the gradients to itself, got {scheme}: "
            "in a loop of your own the layer takes their norms"
        )
    found = forked(model)
    if found is None:
        made = Balancer(scheme, **options)
        if made.equilibrium and not _takes_fork(model, made):
            raise ValueError(
                "in equilibrium a model must fork, by balancer.fork in a functional one or an "
                f"argument `fork` of its call, got a {type(model).__qualname__} without"
            )
        return made
    wanted = Balancer(scheme, **{"equilibrium": True, **options})
    assert isinstance(found, Balancer)
    ours, theirs = ({**b.get_config(), "name": None} for b in (wanted, found))
    ours["names"] = ours["names"] or theirs["names"]
    if ours != theirs:
        raise ValueError(f"the balancer must be that of the model's forks, {theirs}, got {ours}")
    return found


def _takes_fork(model: keras.Model, balancer: Balancer) -> bool:
    return balancer.equilibrium and "fork" in signature(model.call).parameters


def _check_model(model: Any) -> None:
    """TypeError or ValueError unless Keras 3 trains the model its own way."""
    kind = type(model)
    if not isinstance(model, keras.Model):
        raise TypeError(
            "the model must be a keras.Model of Keras 3 (tf_keras is Keras 2), got a "
            f"{kind.__module__}.{kind.__qualname__}"
        )
    own = [name for name in KERAS_OWN if getattr(kind, name) is not getattr(keras.Model, name)]
    if own:
        raise ValueError(
            f"a model with a step of its own must balance there, with the layer: loss = "
            f"Balancer(scheme)(losses); balance_model would drop {', '.join(own)} "
            f"of {kind.__qualname__}"
        )
