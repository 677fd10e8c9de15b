"""Early exits on any functional Keras model: images (B, H, W, C), logits (B, num_classes)."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import keras
import numpy as np
from keras import ops

from loss_balance.reference_models.description.exits import OUTPUT, classes_of, named
from loss_balance.reference_models.description.inputs import check_images
from loss_balance.reference_models.description.spec import ExitCost
from loss_balance.reference_models.description.weights import Weights, check_fit
from loss_balance.reference_models.keras.graph import check_functional, cut
from loss_balance.reference_models.keras.heads import head_for
from loss_balance.reference_models.keras.segments import Segments, Unpacked, multiply_adds
from loss_balance.reference_models.keras.variables import named_variables, wide

Fork = Callable[[Any, int], tuple[Any, Any]]  # (maps, exit) to (what it reads, what goes on)


def with_exits(
    model: keras.Model, exits: Mapping[str, Any] | Sequence[str], **options: Any
) -> MultiExitNet:
    """A network of a functional model that also predicts after some of its layers.

    ::

        backbone = keras.applications.ResNet50V2(weights=None, classifier_activation=None)
        net = with_exits(backbone, ["conv2_block3_out", "conv3_block4_out"])
        model = balance_model(net, len(net.names))
        model.compile("adam", loss=[cross_entropy] * len(net.names))
        model.fit(images, [labels] * len(net.names))

    It shares the model's layers and weights: training one trains the other. Maps have their
    channels last.

    Args:
        model: functional (`keras.applications` are) or a built Sequential; from images of one size
            (B, H, W, C) to logits (B, num_classes), which are the last exit, without softmax.
        exits: names of layers in its graph, in order of computation, each to its head: a layer,
            taken as it is; a function of the features' shape without the batch, (H, W, C) or
            (tokens, C), that returns one; or None, as for names alone: batch norm, ReLU, global
            average and a linear layer for maps, layer norm, mean and a linear layer for tokens.
        **options: of every Keras model: `name`, `trainable`.

    Raises:
        ValueError: no such model, no exits, a name that is not of a layer in the outer graph, not
            in order of computation or of the output's own layer, a head that does not fit.
    """
    return MultiExitNet(model, exits, **options)


@keras.saving.register_keras_serializable(package="loss_balance")
class MultiExitNet(keras.Model):
    """What `with_exits` makes, with its arguments.

    Import this module before `keras.saving.load_model`.

    Attributes:
        backbone: the model as it was given.
        names: of the exits; the last is "output".
        heads: one layer for each exit before it.
        input_shape: (H, W, C) of an image.
        num_classes: logits per exit.
    """

    framework = "tensorflow"

    def __init__(
        self, model: keras.Model, exits: Mapping[str, Any] | Sequence[str], **options: Any
    ) -> None:
        heads = named(exits)
        check_functional(model)
        classes = _classes_of_logits(model.outputs[0])
        image = tuple(model.inputs[0].shape[1:])
        if len(image) != 3 or None in image:
            raise ValueError(
                "the model's input must be images (B, H, W, C) of one size, got "
                f"(B, {', '.join(map(str, image))})"
            )
        stages = cut(model, list(heads))
        read = {name: stage.given[0] for name, stage in zip(heads, stages[1:], strict=True)}
        made = [head_for(name, read[name], head, classes, model) for name, head in heads.items()]
        if len({id(head) for head in made}) < len(made):
            raise ValueError("heads must be a layer for each exit, got one for several")
        # The policy decides on loss scaling; the images are for the model to cast.
        super().__init__(**{"dtype": model.dtype_policy, **options}, autocast=False)
        self.backbone = model
        self.heads = made
        self.names = (*heads, OUTPUT)
        self.input_shape = image
        self.num_classes = classes
        self._cut = _Untracked(stages)
        self.built = True

    def build(self, input_shape: Any) -> None:
        """Nothing: all variables were made in the constructor."""

    @property
    def output_names(self) -> list[str]:
        """`fit` calls its losses and metrics so."""
        return list(self.names)

    def call(self, x: Any, training: bool = False, fork: Fork | None = None) -> list[Any]:
        """Logits (B, num_classes) of every exit, for images (B, H, W, C).

        Args:
            x: the images.
            training: as of every Keras layer.
            fork: `balance.fork` of a balancer in equilibrium, called where each exit branches off
                with the features, a list where several tensors go on, of which the head reads the
                first; for the last exit where the one before it does.
                `balance_model(net, scheme, equilibrium=True)` gives it.

        Raises:
            ValueError: images of another shape than the model's.
        """
        check_images(x.shape, self.input_shape)
        answers = []
        for k in range(len(self.names)):
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
            ValueError: images of another shape than the model's; sent, what are no positions in
                the current batch.
        """
        x = ops.convert_to_tensor(x, dtype=self.backbone.inputs[0].dtype)
        check_images(x.shape, self.input_shape)
        return self._segments.answers(x, len(self.names))

    @cached_property  # Keras sees what is assigned, and would save it
    def _segments(self) -> Segments:
        return Segments(self._segment)

    def _segment(self, x: Any, k: int, training: bool, fork: Fork | None = None) -> tuple[Any, Any]:
        """(what later stages go on with, logits of exit k) from exit k - 1's."""
        headed = k < len(self.heads)
        if fork is not None and not headed:  # all that is left is this exit's
            x, _ = fork(x, k)
        tensors = self._cut.stages[k](x if isinstance(x, (list, tuple)) else [x], training)
        x = tensors if len(tensors) > 1 else tensors[0]
        if not headed:
            return x, x
        read, x = (x, x) if fork is None else fork(x, k)
        first = read[0] if isinstance(read, (list, tuple)) else read
        return x, self.heads[k](first, training=training)

    def segments(self) -> list[Callable[..., tuple[Any, ...]]]:
        """What is computed in inference up to each exit from the one before it.

        Each takes the tensors that the one before handed on, the first one images (B, H, W, C), as
        positional arguments, and returns (tensors handed on ..., logits), the last one (logits,).
        """
        stages, last = self._cut.stages, len(self.names) - 1
        return [
            Unpacked(partial(self._segment, k=k, training=False), len(stage.given) > 1, k == last)
            for k, stage in enumerate(stages)
        ]

    def costs(self) -> tuple[ExitCost, ...]:
        """Cumulative cost of each exit, all earlier heads included, as of the reference networks.

        Multiply-adds per image of convolutions and matrix products alone, padding included, as the
        framework counts them in inference; parameters that are trainable now, each once.
        """
        total, seen, found = 0, dict[int, int](), []
        for k, stage in enumerate(self._cut.stages):
            given = stage.given if len(stage.given) > 1 else stage.given[0]
            total += multiply_adds(partial(self._segment, k=k, training=False), given)
            for part in (stage.model, *self.heads[k : k + 1]):
                seen |= {id(v): math.prod(v.shape) for v in part.trainable_variables}
            found.append(ExitCost(total, sum(seen.values())))
        return tuple(found)

    def load_weights(self, weights: Any, *args: Any, **options: Any) -> None:
        """Takes arrays under the names of `dump_weights`.

        A path instead of a mapping is a file of Keras' own, as for every `keras.Model`.

        Raises:
            ValueError: names or shapes do not fit, all in one message; nothing is changed then.
        """
        if not isinstance(weights, Mapping):
            super().load_weights(weights, *args, **options)
            return
        own = dict(self.named_variables())
        shapes = {name: tuple(variable.shape) for name, variable in own.items()}
        check_fit(self.name, shapes, {name: np.shape(value) for name, value in weights.items()})
        arrays = {name: np.asarray(weights[name], wide(v)) for name, v in own.items()}
        for name, variable in own.items():
            variable.assign(arrays[name])

    def single_exit(self, exit_index: int) -> MultiExitNet:
        """The network cut after one exit, with that head alone, sharing its layers."""
        return _Cut(self, exit_index)

    def trained_names(self) -> set[str]:
        """Which of the weights are trained."""
        return {name for name, variable in self.named_variables() if variable.trainable}

    def dump_weights(self) -> Weights:
        """Copies of all weights by name, such as "backbone.conv1_conv.kernel", float32 or wider."""
        return {
            name: np.array(ops.convert_to_numpy(variable), wide(variable))
            for name, variable in self.named_variables()
        }

    def named_variables(self) -> Iterator[tuple[str, keras.Variable]]:
        """All weights by the names of the layers they are in, those of heads under `heads`.

        A layer that Keras named itself ("dense_7") is counted anew within the one around it, so
        that a network built alike has the same names.
        """
        parts = {"backbone": self.backbone}
        parts |= {f"heads.{name}": head for name, head in zip(self.names, self.heads, strict=False)}
        yield from named_variables(parts).items()

    def get_config(self) -> dict[str, Any]:
        serialized = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "model": serialized(self.backbone),
            "exits": list(self.names[:-1]),
            "heads": [serialized(head) for head in self.heads],
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> MultiExitNet:
        rest = dict(config)
        made = partial(keras.saving.deserialize_keras_object, custom_objects=custom_objects)
        model, heads = made(rest.pop("model")), [made(head) for head in rest.pop("heads")]
        return cls(model, dict(zip(rest.pop("exits"), heads, strict=True)), **rest)


class _Cut(MultiExitNet):
    """A network cut after one exit."""

    def __init__(self, net: MultiExitNet, exit_index: int) -> None:
        keras.Model.__init__(self, name="cut", dtype=net.dtype_policy, autocast=False)
        self.backbone, self.heads = net.backbone, net.heads[exit_index : exit_index + 1]
        if self.heads:  # up to what it reads
            features = net._cut.stages[exit_index + 1].given[0]
            self.backbone = keras.Model(net.backbone.inputs, features, name=net.backbone.name)
        self.names = (net.names[exit_index],)
        self.input_shape, self.num_classes = net.input_shape, net.num_classes
        self._cut = _Untracked(cut(self.backbone, []))
        self.built = True


class _Untracked:
    """Stages are models too, of layers that are in the backbone: Keras would save them twice."""

    def __init__(self, stages: list[Any]) -> None:
        self.stages = stages


def _classes_of_logits(output: Any) -> int:
    """ValueError if it is no logits: their softmax trains with another loss and calibrates ill."""
    classes = classes_of(output)
    last = output._keras_history.operation
    activation = getattr(last, "activation", None)
    if isinstance(last, keras.layers.Softmax) or activation is keras.activations.softmax:
        raise ValueError(
            f"the model's output must be logits, got the softmax of {last.name!r}: build the "
            "model without it (classifier_activation=None in keras.applications)"
        )
    return classes
