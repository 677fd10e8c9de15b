"""Physics-informed networks against known solutions: a Poisson and a Burgers equation.

Both are the literature's: Poisson's with a product of sines for its solution, as Wang, Teng and
Perdikaris (2021, arXiv:2001.04536) take it for the like Helmholtz equation, so that the residual's
loss is ten thousand times the boundary's; and Burgers' of Raissi, Perdikaris and Karniadakis
(2019), viscosity 0.01 / pi, whose solution Basdevant et al. (1986) give as two integrals.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.quality.problems.problem import Fork, Metric, Problem, Session

Floats = NDArray[np.float64]
VISCOSITY = 0.01 / np.pi
STEPS = 100  # of an epoch
INSIDE, EDGE = 128, 32  # points of a batch


class Points(NamedTuple):
    """A batch: where the equation, and where the values are asked for."""

    inside: Tensor  # shape (points, 2)
    edges: list[tuple[Tensor, Tensor]]  # a loss each: (points, 2) and the values, (points,)


class Jet(NamedTuple):
    """A function at some points, with what an equation needs of its derivatives."""

    value: Tensor  # shape (points,)
    first: Tensor  # shape (2, points), by each coordinate
    second: Tensor  # shape (2, points), twice by each coordinate


class Equation(Problem):
    """A residual, and values on edges; judged by the relative error of the solution."""

    output = False
    metrics = (Metric("relative L2 error, %", "%", 100.0, 2),)
    low: ClassVar[tuple[float, float]]  # of both coordinates
    high: ClassVar[tuple[float, float]]

    def __init__(self, epochs: int = 5) -> None:
        self.epochs = epochs

    @abstractmethod
    def solution(self, points: Floats) -> Floats:
        """The known solution, shape (points,)."""

    @abstractmethod
    def residual(self, points: Tensor, u: Jet) -> Tensor:
        """What is to be 0, shape (points,), for the network's `u` at `points`."""

    @abstractmethod
    def edges(self, draw: np.random.Generator) -> list[tuple[Floats, Floats]]:
        """Points of each loss beside the residual's, and the values there."""

    @cached_property
    def points(self) -> dict[str, tuple[Floats, Floats]]:
        """Points and solution: drawn for validation, a grid for the test."""
        drawn = np.random.default_rng(7).uniform(self.low, self.high, (2000, 2))
        axes = (np.linspace(a, b, 64) for a, b in zip(self.low, self.high, strict=True))
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
        return {"validation": (drawn, self.solution(drawn)), "test": (grid, self.solution(grid))}

    def session(self, seed: int) -> Session:
        return Solver(self, seed)


class Poisson(Equation):
    """u_xx + u_yy = f on [-1, 1]^2, u given on its four sides."""

    name = "poisson"
    title = "Poisson's equation in the plane, two losses"
    losses = ("residual", "boundary")
    low, high = (-1.0, -1.0), (1.0, 1.0)

    @property
    def statics(self) -> dict[str, tuple[float, ...]]:
        return {
            "boundary x 100": (0.01, 1.0),
            "boundary x 1000": (0.001, 1.0),
        }

    def solution(self, points: Floats) -> Floats:
        found: Floats = np.sin(np.pi * points[:, 0]) * np.sin(2 * np.pi * points[:, 1])
        return found

    def residual(self, points: Tensor, u: Jet) -> Tensor:
        x, y = points.unbind(1)
        source = -5 * torch.pi**2 * torch.sin(torch.pi * x) * torch.sin(2 * torch.pi * y)
        return u.second.sum(0) - source

    def edges(self, draw: np.random.Generator) -> list[tuple[Floats, Floats]]:
        side = draw.uniform(-1.0, 1.0, EDGE)
        across = np.resize([-1.0, 1.0], EDGE)
        half = EDGE // 2
        where = np.stack((side, across), 1)
        where[half:] = where[half:, ::-1]
        return [(where, np.zeros(EDGE))]  # the sines are 0 there


class Burgers(Equation):
    """u_t + u u_x = nu u_xx for x in [-1, 1], t in [0, 1]; points are (t, x)."""

    name = "burgers"
    title = "Burgers' equation, three losses"
    losses = ("residual", "initial", "boundary")
    low, high = (0.0, -1.0), (1.0, 1.0)

    @property
    def statics(self) -> dict[str, tuple[float, ...]]:
        return {
            "initial and boundary x 10": (0.1, 1.0, 1.0),
            "initial x 100": (0.01, 1.0, 0.01),
        }

    def solution(self, points: Floats) -> Floats:
        """By Cole and Hopf's transformation: two integrals, by Gauss-Hermite quadrature."""
        t, x = points[:, :1], points[:, 1:]
        nodes, weights = np.polynomial.hermite.hermgauss(100)
        at = x - np.sqrt(4 * VISCOSITY * t) * nodes
        density = weights * np.exp(-(np.cos(np.pi * at) + 1) / (2 * np.pi * VISCOSITY))
        found: Floats = -(np.sin(np.pi * at) * density).sum(1) / density.sum(1)
        return np.where(t[:, 0] > 0.0, found, -np.sin(np.pi * x[:, 0]))

    def residual(self, points: Tensor, u: Jet) -> Tensor:
        del points
        return u.first[0] + u.value * u.first[1] - VISCOSITY * u.second[1]

    def edges(self, draw: np.random.Generator) -> list[tuple[Floats, Floats]]:
        initial = np.stack((np.zeros(EDGE), draw.uniform(-1.0, 1.0, EDGE)), 1)
        boundary = np.stack((draw.uniform(0.0, 1.0, EDGE), np.resize([-1.0, 1.0], EDGE)), 1)
        return [(initial, -np.sin(np.pi * initial[:, 1])), (boundary, np.zeros(EDGE))]


def jet(net: nn.Sequential, points: Tensor) -> Jet:
    """Value and derivatives of a network of linear layers and tanh, carried through its layers.

    A fraction of the time of differentiating twice.
    """
    value = points
    first = torch.eye(2, dtype=points.dtype)[:, None, :].expand(2, len(points), 2)
    second = torch.zeros_like(first)
    for layer in net:
        if isinstance(layer, nn.Linear):
            value = layer(value)
            first, second = first @ layer.weight.T, second @ layer.weight.T
        else:
            value = torch.tanh(value)
            slope = 1 - value**2
            second = slope * (second - 2 * value * first**2)
            first = slope * first
    return Jet(value[:, 0], first[..., 0], second[..., 0])


class Solver(Session):
    """Three hidden layers of 32, tanh; new points at each step."""

    def __init__(self, problem: Equation, seed: int) -> None:
        torch.manual_seed(seed)
        self.draw = np.random.default_rng(seed)
        self.problem, self.steps = problem, STEPS
        widths = (2, 32, 32, 32)
        layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.Tanh())]
        self.net: nn.Sequential = nn.Sequential(*layers, nn.Linear(32, 1))
        self.shared = list(self.net.parameters())

    def epoch(self) -> Iterator[Points]:
        for _ in range(self.steps):
            inside = self.draw.uniform(self.problem.low, self.problem.high, (INSIDE, 2))
            edges = self.problem.edges(self.draw)
            yield Points(_tensor(inside), [(_tensor(x), _tensor(u)) for x, u in edges])

    def losses(self, batch: Points, fork: Fork) -> tuple[list[Tensor], Tensor | None]:
        del fork
        residual = self.problem.residual(batch.inside, jet(self.net, batch.inside))
        errors = [self.net(where)[:, 0] - known for where, known in batch.edges]
        return [each.square().mean() for each in (residual, *errors)], None

    def metrics(self, split: str) -> list[float]:
        points, known = self.problem.points[split]
        with torch.no_grad():
            said = self.net(_tensor(points))[:, 0].double().numpy()
        return [float(np.linalg.norm(said - known) / np.linalg.norm(known))]


def _tensor(values: Floats) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
