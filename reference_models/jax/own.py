"""Early exits on a chain of stages of one's own: images (B, H, W, C), logits (B, num_classes)."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from loss_balance.checks import check_count
from loss_balance.reference_models.counting.jax import multiply_adds
from loss_balance.reference_models.description.exits import OUTPUT
from loss_balance.reference_models.description.inputs import check_images
from loss_balance.reference_models.description.spec import ExitCost
from loss_balance.reference_models.description.weights import Weights, check_fit
from loss_balance.reference_models.jax.heads import Function, Heads, Stages, first_of, itself
from loss_balance.reference_models.jax.net import Fork, no_fork, placed_as
from loss_balance.reference_models.jax.segments import Segment, Unpacked, answers, segments_of


def with_exits(
    stages: Mapping[str, Callable[..., Any]] | Sequence[Callable[..., Any]],
    heads: Mapping[str | int, Any] | Sequence[str | int],
    *,
    input_shape: Sequence[int],
    rngs: nnx.Rngs | None = None,
) -> MultiExitNet:
    """A network of stages that predicts after some of them.

    ::

        net = with_exits({"stem": stem, "body": body, "top": top}, ["stem", "body"],
                         input_shape=(32, 32, 3))
        losses = [cross_entropy(logits, labels) for logits in net(images)]

    The stages are those given: training one trains the other.

    Args:
        stages: NNX modules or functions, in order: the first takes images, each further one what
            the one before gives, an array, or several in a list or tuple. A sequence is called
            "stage0", "stage1", ... The last one gives logits (B, num_classes).
        heads: name or index of stages, in order, each to its head: a module, taken as it is; a
            function of the features' shape without the batch, (H, W, C) or (tokens, C), that
            returns one; or None, as for names alone: batch norm, ReLU, global average and a linear
            layer for maps, layer norm, mean and a linear layer for tokens. Of several arrays the
            head reads the first. With a head for the last stage too, the logits are that head's.
        input_shape: (H, W, C) of an image.
        rngs: for the default heads, by default of seed 0.

    Raises:
        ValueError: no exits before the output, a name that no stage has, not in order, a stage or
            head that does not fit.
    """
    image = tuple(input_shape)
    if len(image) != 3:
        raise ValueError(f"input_shape must be (height, width, channels), got {image}")
    for size in image:
        check_count("every entry of input_shape", size)
    chain = Stages(stages)
    made = Heads(chain, heads, image, nnx.Rngs(0) if rngs is None else rngs)
    return MultiExitNet(chain, made, image)


OUTPUT_ITSELF = Function(itself)  # where the last stage gives logits


class MultiExitNet(nnx.Module):
    """What `with_exits` makes.

    Attributes:
        stages: the modules, functions in a module each.
        heads: of each exit, the last one's too where it was given.
        names: of the exits; the last is "output".
        input_shape: (H, W, C) of an image.
        num_classes: logits per exit.
    """

    framework = "jax"

    def __init__(self, chain: Stages, heads: Heads, input_shape: tuple[int, ...]) -> None:
        self.stages: nnx.List[nnx.Module] = nnx.List(chain.modules)
        self.heads: nnx.List[nnx.Module] = nnx.List(heads.modules)
        self.names: tuple[str, ...] = (*heads.names, OUTPUT)
        self.input_shape = input_shape
        self.num_classes: int = heads.num_classes
        self._stage_names = chain.names
        self._ends = heads.ends  # of each exit: how many stages it is after

    def __call__(self, x: Array, fork: Fork | None = None) -> list[Array]:
        """Logits (B, num_classes) of every exit, for images (B, H, W, C).

        Args:
            x: the images.
            fork: called where each exit branches off with what the stage gave, of which the head
                reads the first; for a last exit without a head where the exit before it does:
                `balance.fork` of a module in equilibrium, or
                `partial(fork, state=state, scheme=scheme)`.

        Raises:
            ValueError: images of another shape than `input_shape`.
        """
        check_images(x.shape, self.input_shape)  # type: ignore[arg-type]
        fork = no_fork if fork is None else fork
        features: Any = x
        found: list[Array] = []
        for parts, head in self._parts():
            whole = head is OUTPUT_ITSELF  # all that is left is this exit's
            if whole:
                features, _ = fork(features, index=len(found))
            for stage in parts:
                features = stage(features)
            read, features = (features, None) if whole else fork(features, index=len(found))
            found.append(head(first_of(read)))
        return found

    def anytime(self, x: Array) -> Generator[Array, Any, None]:
        """The answers of a call in evaluation mode, one exit at a time, none beyond those consumed.

        It predicts as after `eval()` whatever mode is set, for a prediction must not depend on who
        else is still in the batch. What lies between two exits is compiled once per shape and
        structure, and runs on whatever weights the network has by then.

        ::

            answers = net.anytime(images)
            logits = next(answers)
            logits = answers.send(np.flatnonzero(unsure(logits)))  # the others are done

        `send` takes positions in the current batch, shape (n,), and returns the next exit's logits
        for these samples alone. The batch is then padded to the next power of two, so that at most
        log2(B) batch sizes are compiled; the padding is cut off on the host.

        Raises:
            ValueError: images of another shape than `input_shape`, before anything is computed;
                what is sent is no position in the current batch.
        """
        check_images(x.shape, self.input_shape)  # type: ignore[arg-type]
        return answers(self._segments(), jnp.asarray(x))

    def _parts(self) -> Iterator[tuple[list[Any], Any]]:
        """(stages since the exit before, head) of each exit."""
        begin, heads = 0, [*self.heads, OUTPUT_ITSELF]
        for end, head in zip(self._ends, heads, strict=False):
            yield list(self.stages)[begin:end], head
            begin = end

    def _segments(self) -> list[Segment]:
        def make() -> list[Segment]:
            last = len(self.names) - 1
            return [
                Segment(parts, head, k == last, first_of)
                for k, (parts, head) in enumerate(self._parts())
            ]

        return segments_of(self, [*self.stages, *self.heads], make)

    def segments(self) -> list[Callable[..., tuple[Array, ...]]]:
        """What is computed in evaluation mode up to each exit from the one before it.

        Each takes the arrays that the one before handed on, the first one images (B, H, W, C), as
        positional arguments, and returns (arrays handed on ..., logits), the last one (logits,).
        """
        image = (1, *self.input_shape)
        features: Any = jax.ShapeDtypeStruct(image, jnp.float32)  # type: ignore[no-untyped-call]
        found: list[Callable[..., tuple[Array, ...]]] = []
        for segment in self._segments():
            found.append(Unpacked(segment, isinstance(features, (list, tuple))))
            features, _ = jax.eval_shape(segment, features)
        return found

    def costs(self) -> tuple[ExitCost, ...]:
        """Cumulative cost of each exit, all earlier heads included, as of the reference networks.

        Multiply-adds per image of convolutions and matrix products alone, padding included, in
        evaluation mode (`reference_models.counting.jax` says what of loops); values of
        nnx.Param, each once.
        """
        total, seen, found = 0, dict[int, int](), []
        features: Any = jax.eval_shape(lambda: jnp.zeros((1, *self.input_shape), jnp.float32))
        for (parts, head), segment in zip(self._parts(), self._segments(), strict=True):
            total += multiply_adds(segment, features)
            features, _ = jax.eval_shape(segment, features)
            for part in (*parts, head):
                inside = (node for _, node in nnx.iter_graph(part))
                parameters = (node for node in inside if isinstance(node, nnx.Param))
                seen |= {id(p): math.prod(p.get_value().shape) for p in parameters}
            found.append(ExitCost(total, sum(seen.values())))
        return tuple(found)

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Takes arrays under the names of `dump_weights`.

        Arrays stay on the devices and in the dtype they had.

        Raises:
            ValueError: names or shapes do not fit, all in one message; nothing is changed then.
        """
        own = dict(self._variables())
        shapes = {name: variable.get_value().shape for name, variable in own.items()}
        found = {name: np.shape(value) for name, value in weights.items()}
        check_fit("the network", shapes, found)
        given = {name: np.array(weights[name], v.get_value().dtype) for name, v in own.items()}
        for name, variable in own.items():
            variable.set_value(placed_as(variable.get_value(), given[name]))

    def single_exit(self, exit_index: int) -> MultiExitNet:
        """A copy cut after one exit, with that head alone."""
        cut: MultiExitNet = nnx.merge(*nnx.split(self))
        end = self._ends[exit_index]
        cut.stages = nnx.List(list(cut.stages)[:end])
        cut.heads = nnx.List(list(cut.heads)[exit_index : exit_index + 1])
        cut.names, cut._ends = (self.names[exit_index],), (end,)
        return cut

    def trained_names(self) -> set[str]:
        """Which of the weights are trained."""
        return {name for name, node in self._variables() if isinstance(node, nnx.Param)}

    def dump_weights(self) -> Weights:
        """Copies of all weights by name, such as "stages.stem.conv.kernel", in float32 or wider."""
        arrays = {name: variable.get_value() for name, variable in self._variables()}
        return {
            name: np.array(array, jnp.promote_types(array.dtype, jnp.float32))
            for name, array in arrays.items()
        }

    def _variables(self) -> Iterator[tuple[str, Any]]:
        """All variables by name, but the counters and keys of random numbers; shared ones once."""
        names = {"stages": self._stage_names, "heads": self.names}
        for path, node in nnx.iter_graph(self):
            if isinstance(node, nnx.Variable) and not isinstance(node, nnx.RngState):
                part, index, *inner = map(str, path)
                yield ".".join((part, names[part][int(index)], *inner)), node
