from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import COUNTS, SMALL, SPARSE, counted

from loss_balance.reference_models import families
from loss_balance.reference_models.parts import BatchNorm, Conv, ConvStem, Linear, ResidualUnit
from loss_balance.reference_models.spec import AnytimeSpec

specs = st.builds(
    lambda n, c, classes, height, width, channels, period: families.resann(
        n, 2 * c, classes, input_shape=(4 * height, 4 * width, channels), period=period
    ),
    *[st.integers(1, 4)] * 6,
    st.none() | st.integers(1, 15),
)


def size(shapes):
    return sum(math.prod(shape) for shape in shapes.values())


@pytest.mark.parametrize("key", COUNTS)
def test_costs_equal_the_counts(key):
    spec, counts = counted(key), COUNTS[key]
    assert list(spec.exits) == counts["exits"]
    assert [cost.multiply_adds for cost in spec.costs()] == counts["multiply_adds"]
    assert [cost.parameters for cost in spec.costs()] == counts["parameters_to_exit"]
    assert size(spec.parameters()) == counts["parameters"]


@pytest.mark.parametrize("key", COUNTS)
def test_a_single_exit_costs_what_the_counts_say(key):
    spec = counted(key)
    alone = [spec.single_exit(k).costs()[-1].multiply_adds for k in range(len(spec.exits))]
    assert alone == COUNTS[key]["multiply_adds_alone"]


def test_all_twelve_networks_of_the_paper_are_counted():
    grid = [(n, c) for n in (7, 9, 13, 17, 25) for c in (16, 32)] + [(9, 64), (9, 128)]
    assert set(COUNTS) == {f"resann-{n}-{c}/{k}" for n, c in grid for k in (10, 100)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("resann-25-32", [6, 12, 18, 25]), ("resann-9-32", [6, 13, 20, 27])],
)
def test_latest_exit_at_quarters_of_the_cost(name, expected):
    """Counting exits from 1, as the published tables do."""
    spec = families.get(name, num_classes=100)
    assert [spec.latest_exit(f) + 1 for f in (0.25, 0.5, 0.75, 1.0)] == expected


@given(specs, st.floats(0.0, 2.0))
def test_latest_exit_is_the_last_one_that_is_cheap_enough(spec, fraction):
    costs = [cost.multiply_adds for cost in spec.costs()]
    affordable = [i for i, cost in enumerate(costs) if cost <= fraction * costs[-1]]
    assert spec.latest_exit(fraction) == max(affordable, default=0)


@given(specs)
def test_each_exit_costs_more_than_the_one_before(spec):
    costs = [(0, 0), *spec.costs()]
    assert len(costs) == len(spec.exits) + 1
    assert all(
        a < b
        for before, after in itertools.pairwise(costs)
        for a, b in zip(before, after, strict=True)
    )
    assert costs[-1][1] == size(spec.parameters())


@given(specs, st.data())
def test_a_cut_network_keeps_names_and_shapes(spec, data):
    index = data.draw(st.integers(-len(spec.exits), len(spec.exits) - 1))
    cut = spec.single_exit(index)
    unit = spec.exits[index]
    assert (cut.exits, len(cut.units)) == ((unit,), unit + 1)
    assert cut.parameters().items() <= spec.parameters().items()
    assert cut.statistics().items() <= spec.statistics().items()
    parts = [name.split(".")[0] for name in cut.parameters()]
    kept = ["stem", *(f"unit{i}" for i in range(unit + 1)), f"exit{unit}"]
    assert list(dict.fromkeys(parts)) == kept


@given(specs)
def test_a_familys_name_gives_the_network_back(spec):
    assert families.get(spec.name, spec.num_classes, input_shape=spec.input_shape) == spec


def test_names_and_layouts():
    parameters = SPARSE.parameters()
    assert list(parameters)[:7] == [
        "stem.conv.kernel",
        "unit0.norm1.scale",
        "unit0.norm1.bias",
        "unit0.conv1.kernel",
        "unit0.norm2.scale",
        "unit0.norm2.bias",
        "unit0.conv2.kernel",
    ]
    assert parameters["stem.conv.kernel"] == (3, 3, 2, 6)
    assert parameters["unit3.conv1.kernel"] == (3, 3, 6, 12)
    assert parameters["unit3.norm1.scale"] == (6,)
    assert parameters["exit8.norm.bias"] == (24,)
    assert parameters["exit8.linear.kernel"] == (24, 5)
    assert parameters["exit8.linear.bias"] == (5,)
    assert SPARSE.statistics()["unit3.norm2.var"] == (12,)
    assert SPARSE.exits == (0, 2, 4, 6, 8)
    assert list(SPARSE.statistics())[-2:] == ["exit8.norm.mean", "exit8.norm.var"]


@pytest.mark.parametrize(
    ("layer", "parameters", "multiply_adds"),
    [
        (Conv((7, 5, 3), 4, size=3), 108, 7 * 5 * 108),
        (Conv((7, 5, 3), 4, size=3, stride=2), 108, 4 * 3 * 108),
        (Conv((7, 5, 3), 4, size=1), 12, 7 * 5 * 12),
        (BatchNorm(6), 12, 0),
        (Linear(6, 5), 35, 30),
    ],
)
def test_layers_count_parameters_and_multiply_adds(layer, parameters, multiply_adds):
    assert size(layer.parameters()) == parameters
    assert layer.multiply_adds() == multiply_adds


def test_lists_are_taken_and_the_spec_hashes():
    listed = AnytimeSpec(
        SMALL.name, list(SMALL.input_shape), SMALL.stem, list(SMALL.units), list(SMALL.exits), 3
    )
    assert listed == SMALL
    assert hash(listed) == hash(SMALL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 0}, "num_classes must be a whole number of at least 1, got 0"),
        ({"input_shape": (8, 0, 3)}, "input_shape must be a whole number of at least 1, got 0"),
        ({"input_shape": (8, 12)}, r"\(height, width, channels\), got \(8, 12\)"),
        ({"input_shape": (8, 12, 1)}, "stem: it takes 3 channels, got 1"),
        ({"input_shape": (9, 12, 3)}, "unit2: it halves the sides, .* even, got 9x12"),
        ({"input_shape": (8, 10, 3)}, "unit4: it halves the sides, .* even, got 4x5"),
        ({"stem": ConvStem(3, 6)}, "unit0: it takes 4 channels, got 6"),
        ({"units": (ResidualUnit(4, 8), ResidualUnit(4, 8)), "exits": (1,)},
         "unit1: it takes 4 channels, got 8"),
        ({"units": ()}, "the number of units must be .* got 0"),
        ({"exits": ()}, r"exits must increase .* got \(\)"),
        ({"exits": (0, 3)}, r"end at 5 .* got \(0, 3\)"),
        ({"exits": (0, 6)}, r"within the units 0 to 5 .* got \(0, 6\)"),
        ({"exits": (-1, 5)}, r"within the units 0 to 5 .* got \(-1, 5\)"),
        ({"exits": (3, 1, 5)}, r"exits must increase .* got \(3, 1, 5\)"),
        ({"exits": (1, 1, 5)}, r"exits must increase .* got \(1, 1, 5\)"),
    ],
)  # fmt: skip
def test_a_spec_that_cannot_be_built_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4), "in_channels must be"),
        ((4, 0), "out_channels must be"),
        ((4, 2), "even number of channels .* got 4 -> 2"),
        ((3, 6), "even number of channels .* got 3 -> 6"),
        ((4, 4, 3), "stride must be 1 or 2, got 3"),
    ],
)
def test_a_unit_that_cannot_be_built_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResidualUnit(*arguments)


@pytest.mark.parametrize("arguments", [(0, 4), (3, 0), (3.0, 4)])
def test_a_stem_that_cannot_be_built_is_refused(arguments):
    with pytest.raises(ValueError, match=r"ConvStem.*whole number of at least 1"):
        ConvStem(*arguments)


@pytest.mark.parametrize("index", [6, -7])
def test_an_exit_that_is_not_there_is_refused(index):
    with pytest.raises(ValueError, match=f"within the 6 exits, got {index}"):
        SMALL.single_exit(index)


@pytest.mark.parametrize("fraction", [-0.1, math.nan, math.inf])
def test_a_fraction_must_be_a_number(fraction):
    with pytest.raises(ValueError, match="fraction must be a number"):
        SMALL.latest_exit(fraction)


@pytest.mark.parametrize("name", ["resnet-9-32", "resann-9", "resann-9-32-", "ResANN-9-32", ""])
def test_an_unknown_name_lists_the_known_forms(name):
    with pytest.raises(ValueError, match=r"resann-<n>-<c>.*every-<period>.*got"):
        families.get(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0, "c": 4}, "n must be"),
        ({"n": 2, "c": 0}, "c must be"),
        ({"n": 2, "c": 4, "period": 0}, "period must be"),
        ({"n": 2, "c": 3}, "even number of channels"),
        ({"n": 2, "c": 4, "input_shape": (6, 8, 3)}, "unit4: .* got 3x4"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        families.resann(**arguments)
