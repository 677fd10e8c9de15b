"""The balancer as a Keras 3 layer, on every backend of Keras."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from loss_balance.backends.interface import (
    check_equilibrium,
    check_names,
    check_observed,
    check_priorities,
    check_vector,
    in_order,
    negative,
    scheme_config,
    scheme_from_config,
)
from loss_balance.backends.keras.forks import BranchingLayer
from loss_balance.backends.keras.ops import (
    XP,
    cast,
    compiling,
    has_values,
    implied_training,
    is_tensor,
    on_torch,
    replicas,
    stack,
    sum_over_replicas,
)
from loss_balance.equilibrium import check_pull
from loss_balance.schemes.adaloss import as_scheme
from loss_balance.schemes.base import AnyState, Scheme
from loss_balance.schemes.clock import mean, note, settle


@keras.saving.register_keras_serializable(package="loss_balance")
class Balancer(BranchingLayer):
    """Weighted sum of losses whose weights follow the losses.

    ::

        balance = Balancer(AdaLoss(3))
        with tf.GradientTape() as tape:
            loss = balance([loss1, loss2, loss3])

    The state lives in non-trainable weights of the layer, saved with the model or in a checkpoint
    of its own, in float32 whatever the dtype policy. Files of weights and `tf.train.Checkpoint` say
    whose they are: losses are matched by name, and those of another scheme, other hyperparameters
    or other names are refused, by what differs (`strict_loading = False` takes other
    hyperparameters all the same; for another set of losses see `import_state`). The weights of a
    fixed scheme are configuration and never loaded. No gradient flows through the weights. The
    first eager call looks at the values once.

    A call of your own updates the state unless it says `training=False`. Inside the `call` of
    another layer or model this layer does as that one is told, like Keras' Dropout: give the outer
    `call` a `training` argument and pass it on (JAX's `fit` needs that). With none given it is
    inference. `balance.trainable = False` freezes the state too.

    Under `tf.distribute` the averages follow the mean loss over all replicas that have it (one
    all-reduce a call; none where `update` is False and no tensor), so every replica holds the same
    weights.

    With `accumulate=n`, as with `gradient_accumulation_steps=n` of Keras' optimisers, compiled
    steps count their calls too. Where no loss is there at all the total is a constant 0, for which
    TensorFlow's tape has no gradient but on request (`unconnected_gradients`): there mask instead.

    Args:
        scheme: a `Scheme`; an int n means `AdaLoss(n)`.
        names: of the losses, needed for mappings and used in `metrics()`.
        priorities: factors of the losses, >= 0, multiplied with the weights after these were
            computed from the losses as they are; default: 1. A coefficient that a loss is
            multiplied by beforehand would be undone by the balance; and to favour the last loss
            within the balance there is AdaLoss's `final_weight`.
        accumulate: how many calls make one update, on the mean of their losses, as many
            micro-batches make one step of the optimiser (`gradient_accumulation_steps`).
        dtype: of the state, "float32" or "float64", whatever the losses' dtype.
        equilibrium: the weights act on the trunk's gradient, in `fork`, in place of the total,
            which is the plain sum of the losses.
        pull: the trunk's shares are of the weights to this power: 1 as they are, 0 even ones (the
            gradient equilibrium of Li et al. 2019), between them early exits pull more.
        **options: of every Keras layer: `name`, `trainable`.
    """

    def __init__(
        self,
        scheme: Scheme | int,
        *,
        names: Sequence[str] | None = None,
        priorities: Sequence[float] | None = None,
        accumulate: int = 1,
        dtype: Any = "float32",
        equilibrium: bool = False,
        pull: float = 1.0,
        **options: Any,
    ) -> None:
        dtype = keras.backend.standardize_dtype(dtype)
        if dtype not in ("float32", "float64"):  # the mean of a narrower one stalls
            raise ValueError(f"the state's dtype must be float32 or float64, got {dtype}")
        super().__init__(dtype=dtype, autocast=False, **options)
        self.supports_masking = True  # `mask` says which losses are there
        self.scheme = as_scheme(scheme)
        self.names = check_names(names, self.scheme.num_losses)
        self.priorities = check_priorities(priorities, self.scheme.num_losses)
        self.equilibrium, self.pull = bool(equilibrium), check_pull(pull)
        self._notes = accumulate != 1  # whether there may be losses in `pending`
        self._compiled = False  # whether a compiled step never looks there
        self.begin_state(accumulate)
        self.built = True

    def __call__(self, losses: Any, mask: Any = None, **options: Any) -> Any:
        """The weighted sum, a scalar in the losses' dtype; updates the state in training.

        Args:
            losses: scalars in any iterable or mapping, or a tensor of shape (num_losses,). None or
                a number 0 is a loss that is absent in this step; if all are, the total is 0.
            mask: shape (num_losses,), bool, False where a loss is absent; its value, even a NaN,
                and its gradient are then left out. A NaN that arises before, as in a mean over no
                elements, still has a NaN for its gradient: divide by `ops.maximum(count, 1)`.
            **options: `priorities`, shape (num_losses,), in place of the layer's own in this call.
                `update`, a bool, traced or not: False only notes the losses, for the mean that the
                next update takes; default: True at every `accumulate`-th call. `training`, default:
                that of the call this one is part of, else True; False looks at nothing, say where a
                step is recomputed. `norms`, shape (num_losses,), for `GradientNorm` and its like:
                the gradient of the probe that the forks of the last step were given, zeros where
                there is none.

        Raises:
            ValueError: wrong count, shape or names; in the first eager call a negative loss, if the
                scheme takes none, or a state that cannot be.
        """
        vector, present = self._gather(losses, mask)  # before Keras converts what it finds
        options = {name: value for name, value in options.items() if value is not None}
        check_equilibrium(self.equilibrium, options.get("priorities"))
        if "priorities" in options:
            options["priorities"] = self._factors(options["priorities"])
        seen = vector
        if "norms" in options:
            seen = options["norms"] = self._norms(options["norms"])
        if replicas() == 1:
            self._check_first(seen, training=bool(options.get("training", True)))
        return super().__call__(vector, mask=present, **options)

    def call(
        self,
        losses: Any,
        mask: Any = None,
        priorities: Any = None,
        update: Any = None,
        training: bool | None = None,
        norms: Any = None,
    ) -> Any:
        """The total, as of a call; `stateless_call` comes here directly."""
        check_equilibrium(self.equilibrium, priorities)
        vector, present = self._gather(losses, mask)
        training = implied_training(self) if training is None else training
        if norms is not None or (training and self.scheme.observes == "gradients"):
            norms = self._norms(norms)
        if training and self.trainable:
            seen, there = (vector, present) if norms is None else (norms, None)
            weights = self._observe(ops.stop_gradient(seen), there, update)
        else:
            weights = self.loss_weights
        if self.equilibrium:
            return ops.sum(vector)
        factors = self._factors(self.priorities if priorities is None else priorities)
        if factors is not None:
            weights = weights * factors
        wide = keras.backend.result_type(weights.dtype, vector.dtype)  # float16 may be too narrow
        total = ops.sum(cast(weights, wide) * cast(vector, wide))
        return cast(total, vector.dtype)

    def combine(self, losses: Any, present: Any, *, training: bool) -> Any:
        """The total of stacked losses, without what Keras does around a layer's call."""
        if replicas() == 1:
            self._check_first(losses, training=training)
        return self.call(losses, mask=present, training=training)

    def compute_mask(self, *_: Any) -> None:
        """The total has no mask."""

    def compute_output_spec(self, losses: Any, mask: Any = None, **_: Any) -> Any:
        return keras.KerasTensor((), dtype=self._gather(losses, mask)[0].dtype)

    def _gather(self, losses: Any, mask: Any) -> tuple[Any, Any]:
        """The losses as one vector, zero where absent, and which are present (None: all)."""
        count = self.scheme.num_losses
        ordered = in_order(losses, self.names, count)
        present = None
        if isinstance(ordered, list):
            ordered, present = stack(ordered, self.variable_dtype)
        elif not is_tensor(ordered):
            ordered = ops.convert_to_tensor(ordered)
        if "float" not in keras.backend.standardize_dtype(ordered.dtype):
            raise ValueError(f"losses must be real floating point, got {ordered.dtype}")
        if mask is not None:
            mask = ops.convert_to_tensor(mask, dtype="bool")
            check_vector("a mask", mask.shape, count)
            ordered = ops.where(mask, ordered, ops.zeros_like(ordered))
            present = mask if present is None else ops.logical_and(present, mask)
        return ordered, present

    def _norms(self, norms: Any) -> Any:
        check_observed(self.scheme, norms, equilibrium=self.equilibrium)
        norms = ops.convert_to_tensor(norms, dtype=self.variable_dtype)
        check_vector("norms", norms.shape, self.scheme.num_losses)
        return norms

    def _factors(self, priorities: Any) -> Any:
        if priorities is None:
            return None
        factors = ops.convert_to_tensor(priorities, dtype=self.variable_dtype)
        check_vector("priorities", factors.shape, self.scheme.num_losses)
        return factors

    def _observe(self, losses: Any, present: Any, update: Any) -> Any:
        """Updates the state with detached losses and returns the weights to use."""
        losses = cast(losses, self.variable_dtype)
        now = self._now(update)
        directly = now is None and not self._notes
        if directly and on_torch():
            from loss_balance.backends.keras.in_torch import update as update_in_place

            return update_in_place(self, losses, present)
        old = self._read(pending=not directly)
        if directly:
            self._compiled = self._compiled or compiling(losses)
            new = self._directly(old, losses, present)
        else:
            new = self._settled(old, losses, present, True if now is None else now)
        self._write(old, new)
        return new.weights

    def _directly(self, old: AnyState, losses: Any, present: Any) -> AnyState:
        """The next state where every call is an update and nothing is ever noted."""
        if replicas() == 1:
            return self.scheme.update(old, losses, XP, present)
        noted = note(0.0, losses, self.scheme, XP, present)
        values, there = mean(self._whole(noted), XP)
        return self.scheme.update(old, values, XP, there)

    def _settled(self, old: AnyState, losses: Any, present: Any, update: Any) -> AnyState:
        """The next state where losses are noted, by each replica its own until an update."""
        pending = note(old.pending, losses, self.scheme, XP, present)
        if update is False:
            return old._replace(pending=pending)
        new = settle(self.scheme, old, self._whole(pending), XP, update=update)
        if update is True or replicas() == 1:
            return new
        return new._replace(pending=XP.where(update, ops.zeros_like(pending), pending))

    def _whole(self, pending: Any) -> Any:
        """What all replicas have noted."""
        whole = sum_over_replicas(pending)
        if replicas() > 1:  # they refuse alike what is wrong on one: a negative loss is -inf there
            self._check_first(whole[0])
        return whole

    def _now(self, update: Any) -> Any:
        """Whether this call moves the state, None where every one does; counts the calls."""
        if update is None and self.accumulate == 1:
            return None
        if update is not None and update is not True:
            self._will_wait()
        calls = ops.copy(self.state_calls) + 1
        now = calls >= self.accumulate if update is None else update
        if now is not False:
            calls = ops.zeros_like(calls) if now is True else XP.where(now, 0, calls)
        self.state_calls.assign(calls)
        return now

    def _will_wait(self) -> None:
        """Makes every later call look for losses that wait; those compiled before do not."""
        if self._compiled and not self._notes:
            warnings.warn(
                "losses that wait for an update are left out of it in functions compiled before "
                "there were any: give update=True in their calls",
                stacklevel=2,
            )
        self._notes = True

    def state_came(self, state: AnyState, calls: int) -> None:
        super().state_came(state, calls)
        if self._waiting:
            self._will_wait()

    def checkpoint_came(self, *, waiting: bool) -> None:
        super().checkpoint_came(waiting=waiting)
        if waiting:
            self._will_wait()

    def _check_first(self, losses: Any, *, training: bool = True) -> None:
        """Refuses a state that cannot be, and negative losses before the first update; once."""
        if self._checked or not has_values(losses):
            return
        state = self.read_state()
        self.check_state(state)
        first = training and int(state.step) == 0 and not self.scheme.takes_negative
        values = ops.convert_to_numpy(losses)
        if first and (values < 0).any():  # absent ones are zero here
            raise negative(self.scheme, values.tolist())
        self._checked = training or int(state.step) > 0

    @property
    def metrics(self) -> Any:
        """`metrics()` is `loss_weight/<name>`, `loss_average/<name>` and `loss_skipped/<name>`.

        A weight at gamma is on AdaLoss's floor. Warns, once, of losses that were bad in more than
        half of the last 100 updates. Waits for the device: call it as often as you log, not in
        every step. Keras reads the same attribute of every layer as the list of its
        `keras.metrics`: it is that too, and empty.
        """
        return _Metrics(self.read_metrics)

    def get_config(self) -> dict[str, Any]:
        names = None if self.names is None else list(self.names)
        own = {
            "scheme": scheme_config(self.scheme),
            "names": names,
            "priorities": self.priorities,
            "accumulate": self.accumulate,
            "equilibrium": self.equilibrium,
            "pull": self.pull,
            "dtype": self.variable_dtype,
        }
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Balancer:
        return cls(**{**config, "scheme": scheme_from_config(config["scheme"])})


class _Metrics(list[Any]):
    """A layer's own list of Keras metrics, always empty, and what calling it returns."""

    def __init__(self, read: Callable[[], dict[str, float]]) -> None:
        super().__init__()
        self.read = read

    def __call__(self) -> dict[str, float]:
        return self.read()
