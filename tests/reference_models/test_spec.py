from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.networks.contract import COUNTS, counted
from support.networks.contract import published_position as position

from loss_balance.experiments.verification.small_networks import (
    BOTTLENECK,
    CHAINS,
    MULTISCALE,
    SMALL,
    SPARSE,
)
from loss_balance.reference_models import families
from loss_balance.reference_models.description import config
from loss_balance.reference_models.description.layers import BatchNorm, Conv, Linear
from loss_balance.reference_models.description.multiscale import (
    MultiScaleStem,
    MultiScaleTransition,
    MultiScaleUnit,
)
from loss_balance.reference_models.description.parts import (
    ConvHead,
    ConvStem,
    ImageStem,
    LinearHead,
)
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.description.units import (
    BottleneckUnit,
    DenseTransition,
    DenseUnit,
    ResidualUnit,
)

few = st.integers(1, 4)
shapes = st.tuples(few, few, few).map(lambda s: (4 * s[0], 4 * s[1], s[2]))  # halved twice
periods = st.integers(1, 15)
specs = st.one_of(
    st.builds(
        lambda n, c, classes, shape, period: families.resann(
            n, 2 * c, classes, input_shape=shape, period=period
        ),
        *[few] * 3,
        shapes,
        st.none() | periods,
    ),
    st.builds(
        lambda n, growth, classes, shape, bottleneck, reduction, period: families.denseann(
            n,
            growth,
            classes,
            input_shape=shape,
            bottleneck=bottleneck,
            reduction=reduction,
            period=period,
        ),
        *[few] * 3,
        shapes,
        st.integers(0, 4),
        st.sampled_from([0.5, 0.7, 1.0]),
        periods,
    ),
    st.builds(
        lambda third, classes, shape, period: families.msdnet(
            3 * third, classes, input_shape=shape, period=period
        ),
        st.integers(2, 4),
        few,
        shapes,
        st.none() | periods,
    ),
    st.builds(
        lambda blocks, classes, shape, base, step: families.msdnet_original(
            blocks, classes, input_shape=shape, base=base, step=step
        ),
        *[few] * 2,
        shapes,
        *[few] * 2,
    ),
)


def size(shapes):
    return sum(math.prod(shape) for shape in shapes.values())


@pytest.mark.parametrize("key", COUNTS)
def test_costs_equal_the_counts(key):
    spec, counts = counted(key), COUNTS[key]
    assert [position(spec, unit) for unit in spec.exits] == counts["exits"]
    assert [cost.multiply_adds for cost in spec.costs()] == counts["multiply_adds"]
    assert [cost.parameters for cost in spec.costs()] == counts["parameters_to_exit"]
    assert size(spec.parameters()) == counts["parameters"]


@pytest.mark.parametrize("key", COUNTS)
def test_a_single_exit_costs_what_the_counts_say(key):
    spec = counted(key)
    alone = [spec.single_exit(k).costs()[-1].multiply_adds for k in range(len(spec.exits))]
    assert alone == COUNTS[key]["multiply_adds_alone"]


@pytest.mark.parametrize(
    ("depth", "parameters"), [(121, 7_978_856), (169, 14_149_480), (201, 20_013_928)]
)
def test_cut_at_the_last_exit_it_is_the_ordinary_densenet(depth, parameters):
    """The numbers are torchvision's."""
    spec = families.get(f"denseann{depth}")
    assert spec.single_exit(-1).costs()[-1].parameters == parameters
    assert spec.name == f"denseann{depth}"


def test_all_published_networks_are_counted():
    grid = [(n, c) for n in (7, 9, 13, 17, 25) for c in (16, 32)] + [(9, 64), (9, 128)]
    counted_names = {key.split("/")[0] for key in COUNTS}
    assert {f"resann-{n}-{c}" for n, c in grid} <= counted_names
    assert set(families.PUBLISHED) <= counted_names
    for name in families.PUBLISHED:
        assert f"{name}/{families.get(name).num_classes}" in COUNTS


@pytest.mark.parametrize("spec", [*CHAINS, *map(families.get, families.PUBLISHED)], ids=str)
def test_a_config_survives_json_and_gives_the_network_back(spec):
    assert config.from_config(json.loads(json.dumps(config.to_config(spec)))) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("exits"), "exits"),
        (lambda c: c["units"][0].pop("kind"), "kind"),
        (lambda c: c["units"][0].update(kind="Lambda"), "Lambda"),
        (lambda c: c["units"][0].update(depth=3), "depth"),
        (lambda c: c.update(exits=[9]), "exits must increase"),
    ],
)
def test_a_config_of_no_network_is_refused(change, message):
    broken = config.to_config(SMALL)
    change(broken)
    with pytest.raises(ValueError, match=message):
        config.from_config(broken)


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
    parts = SMALL.stem, list(SMALL.units), list(SMALL.exits), list(SMALL.heads)
    listed = AnytimeSpec(SMALL.name, list(SMALL.input_shape), *parts)
    assert listed == SMALL
    assert hash(listed) == hash(SMALL)
    for kind, arguments in [
        (MultiScaleStem, (3, [1, 2])),
        (MultiScaleUnit, ([2, 3], [2, 3], [1, 2])),
        (MultiScaleTransition, ([2, 3], [1, 1])),
    ]:
        tuples = [tuple(x) if isinstance(x, list) else x for x in arguments]
        assert hash(kind(*arguments)) == hash(kind(*tuples))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": SMALL.heads[1:]}, "heads must be as many as exits, got 5 for 6"),
        ({"heads": (LinearHead(4, 2), *SMALL.heads[1:])},
         "same number of classes, got 3 in exit1 and 2 in exit0"),
        ({"heads": (LinearHead(5, 3), *SMALL.heads[1:])}, "exit0: it takes 5 channels, got 4"),
        ({"input_shape": (8, 0, 3)}, "input_shape must be a whole number of at least 1, got 0"),
        ({"input_shape": (8, 12)}, r"\(height, width, channels\), got \(8, 12\)"),
        ({"input_shape": (8, 12, 1)}, "stem: it takes 3 channels, got 1"),
        ({"input_shape": (9, 12, 3)}, "unit2: it halves the sides, .* even, got 9x12"),
        ({"input_shape": (8, 10, 3)}, "unit4: it halves the sides, .* even, got 4x5"),
        ({"stem": ConvStem(3, 6)}, "unit0: it takes 4 channels, got 6"),
        ({"units": (ResidualUnit(4, 8), ResidualUnit(4, 8)), "exits": (1,)},
         "unit1: it takes 4 channels, got 8"),
        ({"units": (DenseUnit(4, 2), BottleneckUnit(4, 2, 8)), "exits": (1,)},
         "unit1: it takes 4 channels, got 6"),
        ({"units": (ResidualUnit(4, 4, 2), DenseTransition(4, 2), DenseTransition(2, 2)),
          "exits": (2,)}, "unit2: it halves the sides, .* even, got 2x3"),
        ({"units": (MultiScaleUnit((4, 8), (2, 2), (1, 2)),), "exits": (0,)},
         "unit0: it takes 2 scales, got 1"),
        ({"stem": MultiScaleStem(3, (4, 8))}, "unit0: it takes one map, got 2 scales"),
        ({"stem": MultiScaleStem(3, (4, 8)), "exits": (0,),
          "units": (MultiScaleTransition((4, 6), (2, 2)),)}, "unit0: it takes 6 channels, got 8"),
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
    ("kind", "arguments", "message"),
    [
        (ResidualUnit, (0, 4), "in_channels must be"),
        (ResidualUnit, (4, 0), "out_channels must be"),
        (ResidualUnit, (4, 2), "even number of channels .* got 4 -> 2"),
        (ResidualUnit, (3, 6), "even number of channels .* got 3 -> 6"),
        (ResidualUnit, (4, 4, 3), "stride must be 1 or 2, got 3"),
        (BottleneckUnit, (4, 0, 4), "inner_channels must be"),
        (BottleneckUnit, (4, 2, 4, 0), "stride must be 1 or 2, got 0"),
        (DenseUnit, (4, 0), "growth must be"),
        (DenseUnit, (4, 2, 0), "inner_channels must be"),
        (DenseTransition, (4, 0), "out_channels must be"),
        (ConvStem, (0, 4), "ConvStem.in_channels must be a whole number of at least 1, got 0"),
        (ConvStem, (3.0, 4), "ConvStem.in_channels must be"),
        (ImageStem, (3, 0), "ImageStem.out_channels must be"),
        (LinearHead, (4, 0), "num_classes must be"),
        (ConvHead, (4, 0, 3), "filters must be"),
        (MultiScaleStem, (3, ()), "number of scales in MultiScaleStem.out_channels must be"),
        (MultiScaleStem, (3, (4, 0)), "every entry of MultiScaleStem.out_channels must be"),
        (MultiScaleUnit, ((4, 8), (2, 2, 2), (1, 1)), "no more scales after it .* 2 -> 3"),
        (MultiScaleUnit, ((4, 8), (2, 2), (1,)), "a bottleneck for each scale .* got 1"),
        (MultiScaleUnit, ((4, 8), (2, 1), (1, 2)), r"at least 2 where two .* got \(2, 1\)"),
        (MultiScaleTransition, ((4, 8), (2,)), "keep all scales, got 2 -> 1"),
    ],
)
def test_a_part_that_cannot_be_built_is_refused(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(*arguments)


def test_scales_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="half of the one before, got 8x8 and 5x4"):
        MultiScaleUnit((2, 2), (2, 2), (1, 1)).outputs(((8, 8, 2), (5, 4, 2)))


def test_an_edge_reads_its_own_scale_or_the_finer_one_in_half_the_new_channels():
    unit = MultiScaleUnit((4, 40, 50), growth=(7, 8), bottleneck=(1, 2, 4))
    found = [(e.name, e.source, e.target, e.inner_channels, e.out_channels) for e in unit.edges()]
    assert found == [
        ("same0", 1, 0, 6, 3),
        ("down0", 0, 0, 4, 4),
        ("same1", 2, 1, 16, 4),
        ("down1", 1, 1, 8, 4),
    ]
    assert MULTISCALE.parameters()["unit3.down0.conv1.kernel"] == (1, 1, 4, 2)
    assert BOTTLENECK.parameters()["unit2.shortcut.kernel"] == (1, 1, 8, 16)


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
    with pytest.raises(ValueError, match=r"resann-<n>-<c>.*every-<period>.*msdnet38, got"):
        families.get(name)


@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        ("resann", {"n": 0, "c": 4}, "n must be"),
        ("resann", {"n": 2, "c": 0}, "c must be"),
        ("resann", {"n": 2, "c": 4, "period": 0}, "period must be"),
        ("resann", {"n": 2, "c": 3}, "even number of channels"),
        ("resann", {"n": 2, "c": 4, "input_shape": (6, 8, 3)}, "unit4: .* got 3x4"),
        ("resann_imagenet", {"depth": 34}, "depth must be one of 26, 50, 77, 101, got 34"),
        ("denseann_imagenet", {"depth": 161}, "depth must be one of 121, 169, 201, 264, got 161"),
        ("denseann", {"n": 0, "growth": 4}, "n must be"),
        ("denseann", {"n": 2, "growth": 0}, "growth must be"),
        ("denseann", {"n": 2, "growth": 4, "bottleneck": -1}, "bottleneck must be"),
        ("denseann", {"n": 2, "growth": 4, "reduction": 0.0}, "reduction must be"),
        ("denseann169", {"input_shape": (200, 224, 3)}, "unit19: .* got 25x28"),
        ("msdnet", {"depth": 16}, "multiple of 3 and at least 6, got 16"),
        ("msdnet", {"depth": 3}, "multiple of 3 and at least 6, got 3"),
        ("msdnet_original", {"blocks": 0}, "blocks must be"),
    ],
)
def test_numbers_out_of_range_are_refused(family, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(families, family)(**arguments)
