"""The reference networks for JAX (Flax NNX): images (B, H, W, C), logits (B, num_classes)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from loss_balance.reference_models.description.inputs import check_images
from loss_balance.reference_models.description.multiscale import MultiScaleStem
from loss_balance.reference_models.description.parts import module_for
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.description.weights import Weights, check, initialise
from loss_balance.reference_models.jax.checkpoint import recomputed, recomputed_head, whole
from loss_balance.reference_models.jax.segments import (
    Segment,
    Unpacked,
    answers,
    coarsest,
    segments_of,
)
from loss_balance.reference_models.jax.units import MODULES

Fork = Callable[..., tuple[Any, Any]]  # (maps, exit) to (what it reads, what goes on)


class AnytimeNet(nnx.Module):
    """A network that predicts after several of its units.

    ::

        net = AnytimeNet(families.resann(9, 32))

        @nnx.jit
        def losses(net, images, labels):
            each = optax.softmax_cross_entropy_with_integer_labels
            return [each(logits, labels).mean() for logits in net(images)]

    Submodules: `stem`, `units` (a list), `exits` (by index, as a string, of the unit they follow).

    Args:
        spec: what to build.
        seed: of the first weights, `weights.initialise(spec, seed)`. None draws none: all arrays
            are `jax.ShapeDtypeStruct`, for `load_weights` or a checkpoint to fill.
        checkpoint: whether the backward pass computes each unit and head anew instead of keeping
            what is inside them: less memory, one more forward pass. Of DenseANN and MSDNet it then
            keeps each map once, not every concatenation. Not for forward-mode differentiation.
        dtype: of maps and convolutions, such as `jnp.bfloat16`; by default that of images and
            parameters. Parameters, statistics, their arithmetic and the logits are float32.

    Raises:
        ValueError: a part of the spec is of no kind that is known here.
    """

    def __init__(
        self,
        spec: AnytimeSpec,
        seed: int | None = 0,
        *,
        checkpoint: bool = False,
        dtype: Any = None,
    ) -> None:
        heads = zip(spec.exits, spec.heads, strict=True)
        self.spec = spec
        self.checkpoint = checkpoint
        self.stem: Any = _abstract(spec.stem, dtype)
        self.units: nnx.List[Any] = nnx.List([_abstract(unit, dtype) for unit in spec.units])
        self.exits: nnx.Dict[Any] = nnx.Dict(
            {str(unit): _abstract(head, dtype) for unit, head in heads}
        )
        if seed is not None:
            self.load_weights(initialise(spec, seed))

    def __call__(self, x: Array, fork: Fork | None = None) -> list[Array]:
        """Logits (B, num_classes) of every exit, for images (B, H, W, C).

        Args:
            x: the images.
            fork: called where each exit branches off: `balance.fork` of a module in equilibrium, or
                `partial(fork, state=state, scheme=scheme)`.

        Raises:
            ValueError: images of another shape than the spec's.
        """
        check_images(x.shape, self.spec.input_shape)
        fork = no_fork if fork is None else fork
        if self.checkpoint:
            return self._recomputing(x, fork)
        features: Any = self.stem(x)
        found: list[Array] = []
        for i, unit in enumerate(self.units):
            features = unit(features)
            if str(i) in self.exits:
                read, features = fork(features, index=len(found))
                found.append(self.exits[str(i)](coarsest(read)))
        return found

    def _recomputing(self, x: Array, fork: Fork) -> list[Array]:
        features = recomputed(self.stem, whole(x))
        found: list[Array] = []
        for i, unit in enumerate(self.units):
            features = recomputed(unit, features)
            if str(i) in self.exits:
                head = self.exits[str(i)]
                at = partial(fork, index=len(found))
                logits, features = recomputed_head(head, features, at)
                found.append(logits)
        return found

    def anytime(self, x: Array) -> Generator[Array, Any, None]:
        """The answers of a call in evaluation mode, one exit at a time, none beyond those consumed.

        It predicts with the running statistics whatever mode is set, for a prediction must not
        depend on who else is still in the batch. What lies between two exits is compiled once per
        shape and structure, and runs on whatever weights the network has by then.

        ::

            answers = net.anytime(images)
            logits = next(answers)
            logits = answers.send(np.flatnonzero(unsure(logits)))  # the others are done

        `send` takes positions in the current batch, shape (n,), and returns the next exit's logits
        for these samples alone. The batch is then padded to the next power of two, so that at most
        log2(B) batch sizes are compiled; the padding is cut off on the host.

        Raises:
            ValueError: images of another shape than the spec's, before anything is computed; what
                is sent is no position in the current batch.
        """
        check_images(x.shape, self.spec.input_shape)
        return answers(self._segments(), jnp.asarray(x))

    def segments(self) -> list[Callable[..., tuple[Array, ...]]]:
        """What is computed in evaluation mode up to each exit from the one before it.

        The first one takes images (B, H, W, C), each other one the maps that the one before handed
        on, as positional arguments; each returns (maps ..., logits), the last one (logits,).
        """
        several = isinstance(self.spec.stem, MultiScaleStem)
        return [Unpacked(run, several and k > 0) for k, run in enumerate(self._segments())]

    def _segments(self) -> list[Segment]:
        return segments_of(self, [self.stem, *self.units, *self.exits.values()], self._between)

    def _between(self) -> list[Segment]:
        between, segments = [self.stem], []
        for i, unit in enumerate(self.units):
            between.append(unit)
            if str(i) in self.exits:
                last = i == len(self.units) - 1
                segments.append(Segment(between, self.exits[str(i)], last))
                between = []
        return segments

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Takes arrays under the spec's names and in its layouts, from any framework.

        Arrays stay on the devices and in the dtype they had.

        Raises:
            ValueError: names or shapes do not fit, all in one message; nothing is changed then.
        """
        check(self.spec, weights)
        own = dict(self._variables())
        given = {name: np.array(weights[name], v.get_value().dtype) for name, v in own.items()}
        for name, variable in own.items():
            variable.set_value(placed_as(variable.get_value(), given[name]))

    def dump_weights(self) -> Weights:
        """Copies of all weights for `load_weights` of any framework, in float32 or wider."""
        arrays = {name: variable.get_value() for name, variable in self._variables()}
        return {
            name: np.array(array, jnp.promote_types(array.dtype, jnp.float32))
            for name, array in arrays.items()
        }

    def _variables(self) -> Iterator[tuple[str, Any]]:
        """The parameters and running statistics by the spec's names."""
        for name in (*self.spec.parameters(), *self.spec.statistics()):
            part, *path = name.split(".")
            found = self._part(part)
            for step in path:
                found = getattr(found, step)
            yield name, found

    def _part(self, name: str) -> Any:
        if name.startswith("unit"):
            return self.units[int(name.removeprefix("unit"))]
        if name.startswith("exit"):
            return self.exits[name.removeprefix("exit")]
        return self.stem


def no_fork(features: Any, index: int) -> tuple[Any, Any]:  # noqa: ARG001
    """Where exits branch off outside of equilibrium."""
    return features, features


def _abstract(part: Any, dtype: Any) -> Any:
    """The part's module without arrays: none is made only to be overwritten."""
    kind = module_for(part, MODULES)
    return nnx.eval_shape(lambda: kind(part, dtype=dtype, rngs=nnx.Rngs(0)))


def placed_as(old: Any, new: np.ndarray) -> Array:
    """`new` as an array on the devices of `old`."""
    committed = isinstance(old, Array) and old.committed
    return jax.device_put(new, old.sharding) if committed else jnp.asarray(new)
