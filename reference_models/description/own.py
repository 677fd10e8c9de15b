"""What is known of a network that has no description but a function that makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loss_balance.reference_models.description.layers import Shape
from loss_balance.reference_models.description.spec import AnytimeSpec, ExitCost, latest_within

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class OwnSpec:
    """A network with exits of one framework, by the function that makes it.

    Attributes:
        name: of the function, as `package.module:function`.
        framework: "torch", "tensorflow" or "jax".
        input_shape: (height, width, channels) of an image.
        num_classes: logits per exit.
        names: of the exits.
        exit_costs: of each exit, as the network's `costs()`.
        trained: names and shapes of what is trained.
        kept: of all other weights, such as running statistics.
        only: the one exit that is left of it, None for all.
        cuts: the network cut after each exit, as `single_exit` gives it.
    """

    name: str
    framework: str
    input_shape: Shape
    num_classes: int
    names: tuple[str, ...]
    exit_costs: tuple[ExitCost, ...]
    trained: Shapes
    kept: Shapes
    only: int | None = None
    cuts: tuple[OwnSpec, ...] = field(default=(), compare=False)

    @property
    def exits(self) -> tuple[int, ...]:
        """A number for each exit, from 0."""
        return tuple(range(len(self.names)))

    def costs(self) -> tuple[ExitCost, ...]:
        """Cumulative cost of each exit."""
        return self.exit_costs

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Trained parameters, name to shape."""
        return dict(self.trained)

    def statistics(self) -> dict[str, tuple[int, ...]]:
        """All other weights, name to shape."""
        return dict(self.kept)

    def latest_exit(self, fraction: float) -> int:
        """As of an `AnytimeSpec`."""
        return latest_within(self.exit_costs, fraction)

    def single_exit(self, exit_index: int) -> OwnSpec:
        """The network cut after one exit, with that head alone; IndexError if there is none."""
        return self.cuts[exit_index]


NetSpec = AnytimeSpec | OwnSpec


def own_config(spec: OwnSpec) -> dict[str, Any]:
    """A dict that JSON can hold and `from_own_config` takes."""
    return {
        "function": spec.name,
        "framework": spec.framework,
        "input_shape": list(spec.input_shape),
        "num_classes": spec.num_classes,
        "names": list(spec.names),
        "exit_costs": [list(cost) for cost in spec.exit_costs],
        "trained": {name: list(shape) for name, shape in spec.trained},
        "kept": {name: list(shape) for name, shape in spec.kept},
        "only": spec.only,
    }


def from_own_config(config: Mapping[str, Any]) -> OwnSpec:
    """The inverse of `own_config`; KeyError or TypeError if something is missing or unknown."""
    return OwnSpec(
        name=str(config["function"]),
        framework=str(config["framework"]),
        input_shape=tuple(config["input_shape"]),
        num_classes=int(config["num_classes"]),
        names=tuple(config["names"]),
        exit_costs=tuple(ExitCost(*cost) for cost in config["exit_costs"]),
        trained=_shapes(config["trained"]),
        kept=_shapes(config["kept"]),
        only=config["only"],
    )


def _shapes(config: Mapping[str, Any]) -> Shapes:
    return tuple((name, tuple(shape)) for name, shape in config.items())
