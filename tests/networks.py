"""The contract that every framework's `AnytimeNet` passes, and what its tests need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy_network import Oracle, training_loss

from loss_balance.reference_models import families, weights
from loss_balance.reference_models.spec import AnytimeSpec

# Per "<name>/<classes>", by an independent counter: parameters, exits (unit before each, from 0),
# and per exit: multiply_adds and parameters_to_exit with all heads so far, multiply_adds_alone with
# that head only.
COUNTS = json.loads((Path(__file__).parent / "data" / "resann_counts.json").read_text())

# Height and width differ, so that a swap shows; an exit after every unit, and after every second.
SMALL = families.resann(2, 4, 3, input_shape=(8, 12, 3))
SPARSE = families.resann(3, 6, 5, input_shape=(12, 8, 2), period=2)


def counted(key: str) -> AnytimeSpec:
    """The network that an entry of COUNTS is about."""
    name, classes = key.split("/")
    return families.get(name, num_classes=int(classes))


def random_weights(spec: AnytimeSpec, seed: int = 1) -> dict[str, np.ndarray]:
    """Weights in which no array is constant, so that none can be left out or mixed up."""
    rng = np.random.default_rng(seed)
    drawn = weights.initialise(spec, seed)
    for name, array in drawn.items():
        if name.endswith((".scale", ".var")):
            drawn[name] = rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
        elif name.endswith((".bias", ".mean")):
            drawn[name] = rng.normal(0.0, 0.3, array.shape).astype(np.float32)
    return drawn


def random_batch(spec: AnytimeSpec, size: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """(images (size, H, W, C) float32, labels (size,))."""
    rng = np.random.default_rng(2)
    images = rng.standard_normal((size, *spec.input_shape), np.float32)
    return images, rng.integers(spec.num_classes, size=size)


class NetworkContract:
    """Subclass as `TestX(NetworkContract)` and fill in the first six methods.

    Images arrive as (B, H, W, C) float32 and logits leave as (B, num_classes) NumPy arrays. All of
    a network's `load_weights` and `dump_weights` are called directly.
    """

    def network(self, spec: AnytimeSpec, seed: int = 0) -> Any:
        """The framework's `AnytimeNet(spec, seed)`."""
        raise NotImplementedError

    def trainable_size(self, spec: AnytimeSpec) -> int:
        """The number of trainable scalars in the built network, as the framework counts them."""
        raise NotImplementedError

    def predict(self, net: Any, images: np.ndarray) -> list[np.ndarray]:
        """A call in evaluation mode."""
        raise NotImplementedError

    def anytime(self, net: Any, images: np.ndarray) -> Iterator[np.ndarray]:
        """`net.anytime` in evaluation mode, as lazy as that."""
        raise NotImplementedError

    def train_step(
        self, net: Any, images: np.ndarray, labels: np.ndarray
    ) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """(logits in training mode, gradients by the spec's names and layouts).

        The loss is the sum over exits of the mean cross-entropy. Running statistics are updated,
        parameters are not.
        """
        raise NotImplementedError

    def parts_run(self, net: Any, images: np.ndarray, exits: int) -> list[str]:
        """Names of the parts computed, in order, while `exits` of `net.anytime` are consumed."""
        raise NotImplementedError

    def loaded(self, spec: AnytimeSpec) -> tuple[Any, dict[str, np.ndarray]]:
        net, given = self.network(spec), random_weights(spec)
        net.load_weights(given)
        return net, given

    @pytest.mark.parametrize("key", COUNTS)
    def test_parameters_of_the_built_network_equal_the_counts(self, key):
        assert self.trainable_size(counted(key)) == COUNTS[key]["parameters"]

    @pytest.mark.parametrize("spec", [SMALL, SPARSE], ids=lambda spec: spec.name)
    def test_logits_equal_the_oracle(self, spec):
        net, given = self.loaded(spec)
        images, _ = random_batch(spec)
        expected = Oracle(spec, given).logits(images)
        for found, logits in zip(self.predict(net, images), expected, strict=True):
            np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-4)

    def test_evaluation_changes_nothing(self):
        net, given = self.loaded(SMALL)
        self.predict(net, random_batch(SMALL)[0])
        assert_same(net.dump_weights(), given)

    def test_training_uses_batch_statistics_and_keeps_a_running_mean(self):
        net, given = self.loaded(SPARSE)
        images, labels = random_batch(SPARSE)
        oracle = Oracle(SPARSE, given, training=True)
        expected = oracle.logits(images)
        logits, _ = self.train_step(net, images, labels)
        for found, wanted in zip(logits, expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)
        dumped = net.dump_weights()
        for name, batch in oracle.statistics.items():
            layer, _, field = name.rpartition(".")
            count = oracle.counts[layer]
            # Some frameworks keep the unbiased variance, some the biased one.
            factors = [1.0, count / (count - 1)] if field == "var" else [1.0, 1.0]
            low, high = (0.9 * given[name] + 0.1 * factor * batch for factor in factors)
            assert (dumped[name] >= low - 1e-4).all(), name
            assert (dumped[name] <= high + 1e-4).all(), name

    def test_gradients_reach_every_parameter(self):
        net, _ = self.loaded(SPARSE)
        _, gradients = self.train_step(net, *random_batch(SPARSE))
        assert {name: g.shape for name, g in gradients.items()} == SPARSE.parameters()
        for name, gradient in gradients.items():
            assert np.isfinite(gradient).all(), name
            assert gradient.any(), name

    def test_gradients_are_the_slope_of_the_oracles_loss(self):
        net, given = self.loaded(SMALL)
        images, labels = random_batch(SMALL)
        _, gradients = self.train_step(net, images, labels)
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients.values()))
        step = 1e-5

        def loss_at(distance):
            moved = {name: given[name] + distance * g / norm for name, g in gradients.items()}
            return training_loss(SMALL, given | moved, images, labels)

        slope = (loss_at(step) - loss_at(-step)) / (2 * step)
        assert slope == pytest.approx(norm, rel=1e-3)

    def test_anytime_equals_a_call(self):
        net, _ = self.loaded(SPARSE)
        images, _ = random_batch(SPARSE)
        answers = list(self.anytime(net, images))
        for found, wanted in zip(answers, self.predict(net, images), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("exits", range(1, len(SPARSE.exits) + 1))
    def test_anytime_computes_nothing_beyond_the_exits_consumed(self, exits):
        net = self.network(SPARSE)
        expected = ["stem"]
        for unit in range(SPARSE.exits[exits - 1] + 1):
            expected += [f"unit{unit}"] + [f"exit{unit}"] * (unit in SPARSE.exits)
        assert self.parts_run(net, random_batch(SPARSE)[0], exits) == expected

    @pytest.mark.parametrize("exit_index", range(len(SPARSE.exits)))
    def test_a_single_exit_answers_as_that_exit_of_the_whole(self, exit_index):
        net, given = self.loaded(SPARSE)
        images, _ = random_batch(SPARSE)
        cut = SPARSE.single_exit(exit_index)
        alone = self.network(cut)
        kept = cut.parameters() | cut.statistics()
        alone.load_weights({name: given[name] for name in kept})
        (found,) = self.predict(alone, images)
        np.testing.assert_allclose(
            found, self.predict(net, images)[exit_index], rtol=1e-5, atol=1e-6
        )

    def test_weights_come_back_exactly_as_they_went_in(self):
        net, given = self.loaded(SPARSE)
        assert_same(net.dump_weights(), given)

    def test_dumped_and_loaded_arrays_are_copies(self):
        net, given = self.loaded(SMALL)
        kept = {name: array.copy() for name, array in given.items()}
        for array in (*given.values(), *net.dump_weights().values()):
            array += 1.0
        assert_same(net.dump_weights(), kept)

    def test_the_seed_decides_the_first_weights(self):
        assert_same(self.network(SMALL, seed=3).dump_weights(), weights.initialise(SMALL, 3))

    def test_weights_that_do_not_fit_change_nothing(self):
        net, given = self.loaded(SMALL)
        wrong = random_weights(SMALL, seed=9)
        wrong["unit1.conv1.kernel"] = wrong["unit1.conv1.kernel"][:1]
        del wrong["exit0.linear.bias"]
        with pytest.raises(ValueError, match=r"missing exit0\.linear\.bias.*unit1\.conv1\.kernel"):
            net.load_weights(wrong)
        assert_same(net.dump_weights(), given)

    @pytest.mark.parametrize("shape", [(2, 12, 8, 3), (2, 8, 12, 1), (8, 12, 3)])
    def test_images_of_another_shape_are_refused(self, shape):
        net = self.network(SMALL)
        with pytest.raises(ValueError, match="expected images of shape"):
            self.predict(net, np.zeros(shape, np.float32))


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Same names in the same order, same dtype, same bits."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)
