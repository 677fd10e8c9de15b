"""The reference networks for Keras 3: images (B, H, W, C), logits (B, num_classes) per exit.

All is written in `keras.ops`, so the call runs on JAX and PyTorch too where Keras does
(`KERAS_BACKEND`). TensorFlow alone compiles `anytime`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property, partial
from operator import attrgetter
from typing import Any

import keras
import numpy as np
from keras import ops

from loss_balance.reference_models.description.config import from_config, to_config
from loss_balance.reference_models.description.inputs import check_images
from loss_balance.reference_models.description.layers import BatchNorm, Conv, Layer, Linear
from loss_balance.reference_models.description.multiscale import MultiScaleStem
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.description.weights import Weights, check, initialise
from loss_balance.reference_models.keras.layers import recomputed
from loss_balance.reference_models.keras.segments import Segments, Unpacked
from loss_balance.reference_models.keras.units import build

Fork = Callable[[Any, int], tuple[Any, Any]]  # (maps, exit) to (what it reads, what goes on)


@keras.saving.register_keras_serializable(package="loss_balance")
class AnytimeNet(keras.Model):
    """A network that predicts after several of its units.

    ::

        net = AnytimeNet(families.resann(9, 32))
        losses = [cross_entropy(labels, logits) for logits in net(images, training=True)]

    or, with `fit` and AdaLoss,

    ::

        model = balance_model(net, len(net.spec.exits))
        model.compile("sgd", loss=[cross_entropy] * len(net.spec.exits))
        model.fit(images, [labels] * len(net.spec.exits))

    Layers: `stem`, `unit0`, `unit1`, ... and `exit3` after `unit3`. All weights exist from the
    start. Import this module before `keras.saving.load_model`.

    Args:
        spec: what to build.
        seed: of the first weights, `weights.initialise(spec, seed)`.
        checkpoint: in training, compute each unit and head again in the backward pass instead of
            keeping what is inside it: less memory, more time, the same results.
        **options: of every Keras model: `name`, `trainable`, `dtype` (a policy for all layers).
    """

    def __init__(
        self, spec: AnytimeSpec, seed: int = 0, *, checkpoint: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self.spec = spec
        self.seed = seed
        self.checkpoint = checkpoint
        self.stem = self._made("stem", spec.stem)
        for i, unit in enumerate(spec.units):
            setattr(self, f"unit{i}", self._made(f"unit{i}", unit))
        for i, head in zip(spec.exits, spec.heads, strict=True):
            setattr(self, f"exit{i}", self._made(f"exit{i}", head))
        self.build((None, *spec.input_shape))
        self.load_weights(initialise(spec, seed))

    def _made(self, name: str, part: Any) -> keras.layers.Layer:
        return build(part, name=name, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:  # noqa: ARG002 (the spec's)
        """Makes all variables; once made they stay."""
        if self.built:  # in the constructor, and a loaded file asks for it again
            return
        for part, layers in self.spec.layers().items():
            for name, layer in layers.items():
                *groups, last = f"{part}.{name}".split(".")
                owner: keras.layers.Layer = self
                with ExitStack() as scopes:  # the kernel's path is unit3/same0/conv1/kernel
                    for group in groups:
                        scopes.enter_context(keras.name_scope(group))
                        owner = getattr(owner, group)
                        owner.built = True  # Keras need not run it once to make its variables
                    getattr(owner, last).build(_input_shape(layer))

    @property
    def output_names(self) -> list[str]:
        """`exit3` after `unit3`: `fit` calls its losses and metrics so."""
        return [f"exit{i}" for i in self.spec.exits]

    def call(self, x: Any, training: bool = False, fork: Fork | None = None) -> list[Any]:
        """Logits (B, num_classes) of every exit, for images (B, H, W, C).

        Args:
            x: the images.
            training: as of every Keras layer.
            fork: `balance.fork` of a balancer in equilibrium, called where each exit branches off.
                `balance_model(net, scheme, equilibrium=True)` gives it.

        Raises:
            ValueError: images of another shape than the spec's.
        """
        check_images(x.shape, self.spec.input_shape)
        answers = []
        for k in range(len(self.spec.exits)):
            x, logits = self._segment(x, k, training, fork)
            answers.append(logits)
        return answers

    def anytime(self, x: Any) -> Generator[Any, Any, None]:
        """The answers of a call in inference, one exit at a time; nothing deeper is run.

        ::

            answers = net.anytime(images)
            logits = next(answers)
            logits = answers.send([0, 2])  # goes on with two of the images

        On TensorFlow each stretch up to an exit is a graph of its own, for any batch size, and no
        gradient flows through: train with a call.

        Yields:
            Logits (B, num_classes). `send` takes positions in the current batch, shape (kept,),
            goes on with these samples alone and gives their next logits.

        Raises:
            ValueError: images of another shape than the spec's; sent, what are no positions in the
                current batch.
        """
        x = ops.convert_to_tensor(x, dtype=self.compute_dtype)
        check_images(x.shape, self.spec.input_shape)
        return self._segments.answers(x, len(self.spec.exits))

    def segments(self) -> list[Callable[..., tuple[Any, ...]]]:
        """What is computed in inference up to each exit from the one before it.

        The first one takes images (B, H, W, C), each other one the maps that the one before handed
        on, as positional arguments; each returns (maps ..., logits), the last one (logits,).
        """
        several, last = isinstance(self.spec.stem, MultiScaleStem), len(self.spec.exits) - 1
        return [
            Unpacked(partial(self._segment, k=k, training=False), several and k > 0, k == last)
            for k in range(last + 1)
        ]

    @cached_property  # Keras sees what is assigned, and would save it
    def _segments(self) -> Segments:
        return Segments(self._segment)

    def _segment(self, x: Any, k: int, training: bool, fork: Fork | None = None) -> tuple[Any, Any]:
        """(what exit k reads and later units go on with, its logits) from exit k - 1's."""
        if k == 0:
            x = self.stem(x, training=training)
        first = self.spec.exits[k - 1] + 1 if k else 0
        last = self.spec.exits[k]
        run = recomputed if self.checkpoint and training else partial(_run, training=training)
        for i in range(first, last + 1):
            x = run(getattr(self, f"unit{i}"), x)
        read, x = (x, x) if fork is None else fork(x, k)
        coarsest = read[-1] if isinstance(read, (list, tuple)) else read
        return x, run(getattr(self, f"exit{last}"), coarsest)

    def load_weights(self, weights: Any, *args: Any, **options: Any) -> None:
        """Takes arrays under the spec's names and in its layouts, from any framework.

        A path instead of a mapping is a file of Keras' own, as for every `keras.Model`.

        Raises:
            ValueError: names or shapes do not fit, all in one message; nothing is changed then.
        """
        if not isinstance(weights, Mapping):
            super().load_weights(weights, *args, **options)
            return
        check(self.spec, weights)
        arrays = [
            (variable, np.asarray(weights[name], _wide(variable)))
            for name, variable in self.named_variables()
        ]
        for variable, array in arrays:
            variable.assign(array)

    def dump_weights(self) -> Weights:
        """Copies of all weights for `load_weights` of any framework, in float32 or wider."""
        return {
            name: np.array(ops.convert_to_numpy(variable), _wide(variable))
            for name, variable in self.named_variables()
        }

    def named_variables(self) -> Iterator[tuple[str, keras.Variable]]:
        """All variables under the spec's names: the parameters, then the running statistics."""
        for name in (*self.spec.parameters(), *self.spec.statistics()):
            path, _, field = name.rpartition(".")
            layer = attrgetter(path)(self)
            norm = isinstance(layer, keras.layers.BatchNormalization)
            yield name, getattr(layer, _OF_NORM[field] if norm else field)

    def get_config(self) -> dict[str, Any]:
        own = {"spec": to_config(self.spec), "seed": self.seed, "checkpoint": self.checkpoint}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> AnytimeNet:  # noqa: ARG003
        return cls(**{**config, "spec": from_config(config["spec"])})


_OF_NORM = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}


def _input_shape(layer: Layer) -> tuple[int | None, ...]:
    match layer:
        case Conv(inputs=(height, width, channels)):
            return (None, height, width, channels)
        case BatchNorm(channels=channels):
            return (None, None, None, channels)
        case Linear(inputs=inputs):
            return (None, inputs)
    raise TypeError(f"no Keras layer stands for {layer}")


def _wide(variable: keras.Variable) -> str:
    """NumPy has no bfloat16."""
    return "float64" if variable.dtype == "float64" else "float32"


def _run(part: keras.layers.Layer, maps: Any, training: bool) -> Any:
    return part(maps, training=training)
