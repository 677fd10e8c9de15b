"""What an anytime network is, before any framework: its parts, parameters and costs.

Every framework names its parameters as `AnytimeSpec.parameters` does.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from loss_balance.checks import check_count, check_range
from loss_balance.reference_models.description.layers import Layer, Shape
from loss_balance.reference_models.description.parts import Features, Head, Part, check_channels


class ExitCost(NamedTuple):
    """What the network takes up to and including one exit, all earlier heads included."""

    multiply_adds: int  # per image; the paper's FLOPs are twice that
    parameters: int  # trainable ones


@dataclass(frozen=True)
class AnytimeSpec:
    """A network that predicts after several of its units.

    Parts are called `stem`, `unit0`, `unit1`, ... and `exit3` for the head after `unit3`, so names
    do not move when the network is cut or exits are left out. Indices count from 0.

    Args:
        name: free text; families give one that `families.get` understands.
        input_shape: (height, width, channels) of an image.
        stem: the part before the first unit.
        units: the parts in order.
        exits: index of the unit after which each exit stands, increasing, the last unit included.
        heads: the classifier of each exit, all with the same number of classes.

    Raises:
        ValueError: a size is not positive, exits do not increase or do not fit the units, or a part
            cannot take what the part before it makes. The message names the part and the rule.
    """

    name: str
    input_shape: Shape
    stem: Part
    units: tuple[Part, ...]
    exits: tuple[int, ...]
    heads: tuple[Head, ...]

    def __post_init__(self) -> None:
        for field in ("input_shape", "units", "exits", "heads"):
            object.__setattr__(self, field, tuple(getattr(self, field)))  # a list would not hash
        if len(self.input_shape) != 3:
            raise ValueError(
                f"input_shape must be (height, width, channels), got {self.input_shape}"
            )
        for size in self.input_shape:
            check_count("every entry of input_shape", size)
        self._check_exits()
        self._check_heads(self.features())

    def _check_exits(self) -> None:
        check_count("the number of units", len(self.units))
        last = len(self.units) - 1
        increasing = sorted(set(self.exits)) == list(self.exits)
        if not increasing or not self.exits or self.exits[0] < 0 or self.exits[-1] != last:
            raise ValueError(
                f"exits must increase within the units 0 to {last} and end at {last} (nothing "
                f"would use the units after the last exit), got {self.exits}"
            )

    def _check_heads(self, features: list[Features]) -> None:
        if len(self.heads) != len(self.exits):
            raise ValueError(
                f"heads must be as many as exits, got {len(self.heads)} for {len(self.exits)}"
            )
        for unit, head in zip(self.exits, self.heads, strict=True):
            if head.num_classes != self.num_classes:
                raise ValueError(
                    f"all heads must have the same number of classes, got {head.num_classes} in "
                    f"exit{unit} and {self.num_classes} in exit{self.exits[0]}"
                )
            try:
                check_channels(features[unit + 1][-1], head.in_channels)
            except ValueError as error:
                raise ValueError(f"exit{unit}: {error}") from None

    @property
    def num_classes(self) -> int:
        """Logits per exit."""
        return self.heads[0].num_classes

    def features(self) -> list[Features]:
        """What the stem makes, then each unit: a tuple of maps, (height, width, channels) each."""
        features: Features = (self.input_shape,)
        made = []
        names = ("stem", *(f"unit{i}" for i in range(len(self.units))))
        for name, part in zip(names, (self.stem, *self.units), strict=True):
            try:
                features = part.outputs(features)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            made.append(features)
        return made

    def layers(self) -> dict[str, dict[str, Layer]]:
        """Part name to its layers by name, all in order of computation."""
        features = self.features()
        heads = dict(zip(self.exits, self.heads, strict=True))
        layers = {"stem": self.stem.layers((self.input_shape,))}
        for i, unit in enumerate(self.units):
            layers[f"unit{i}"] = unit.layers(features[i])
            if i in heads:
                layers[f"exit{i}"] = heads[i].layers(features[i + 1][-1])
        return layers

    def _shapes(self, kind: str) -> dict[str, tuple[int, ...]]:
        return {
            f"{part}.{name}.{field}": shape
            for part, layers in self.layers().items()
            for name, layer in layers.items()
            for field, shape in getattr(layer, kind)().items()
        }

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Trainable parameters, name to shape, in order of computation.

        `unit3.conv1.kernel` is (height, width, in, out), `exit3.linear.kernel` (in, out),
        `unit3.norm1.scale` and every `bias` (channels,). A layer inside a group has a dot in its
        name: `unit3.same0.conv1.kernel`.
        """
        return self._shapes("parameters")

    def statistics(self) -> dict[str, tuple[int, ...]]:
        """Running means and variances, name (`unit3.norm1.mean`, `.var`) to shape (channels,)."""
        return self._shapes("statistics")

    def costs(self) -> tuple[ExitCost, ...]:
        """Cumulative cost of each exit."""
        costs = []
        multiply_adds = parameters = 0
        for part, layers in self.layers().items():
            for layer in layers.values():
                multiply_adds += layer.multiply_adds()
                parameters += sum(math.prod(shape) for shape in layer.parameters().values())
            if part.startswith("exit"):
                costs.append(ExitCost(multiply_adds, parameters))
        return tuple(costs)

    def latest_exit(self, fraction: float) -> int:
        """The latest of the exits whose multiply-adds are at most `fraction` of the total.

        Index among the exits; the first exit if none is that cheap. The paper's tables at 1/4, 1/2,
        3/4 and 1 of the cost do not say how they round; this is our rule.

        Raises:
            ValueError: `fraction` is not a finite number of at least 0.
        """
        return latest_within(self.costs(), fraction)

    def single_exit(self, exit_index: int) -> AnytimeSpec:
        """The network cut after one exit, with that head alone: the paper's OPT (Section 3).

        Kept parameters keep their names.

        Args:
            exit_index: among the exits, from the end if negative.

        Raises:
            ValueError: there is no such exit.
        """
        count = len(self.exits)
        if not -count <= exit_index < count:
            raise ValueError(f"exit_index must be within the {count} exits, got {exit_index!r}")
        unit = self.exits[exit_index]
        return replace(
            self,
            name=f"{self.name}.exit{unit}",
            units=self.units[: unit + 1],
            exits=(unit,),
            heads=(self.heads[exit_index],),
        )


def latest_within(costs: Sequence[ExitCost], fraction: float) -> int:
    """`AnytimeSpec.latest_exit`, of exits that cost so much."""
    check_range("fraction", fraction, 0.0)
    multiply_adds = [cost.multiply_adds for cost in costs]
    return max(bisect_right(multiply_adds, fraction * multiply_adds[-1]) - 1, 0)


def exits_every(period: int, units: int, first: int = 0) -> tuple[int, ...]:
    """Exits after every `period` of `units` units, counted back from the last; none before `first`.

    Indices count from 0.

    Raises:
        ValueError: `period` is not a whole number of at least 1.
    """
    check_count("period", period)
    return tuple(i for i in range((units - 1) % period, units, period) if i >= first)


def option(word: str, value: float, usual: float) -> str:
    """How a family's name tells an option: nothing where it has its usual value."""
    return "" if value == usual else f"-{word}-{value}"
