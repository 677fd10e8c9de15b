"""The contract that every framework's `AnytimeNet` passes, and what its tests need."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.networks.numpy_network import Oracle, training_loss, training_losses

from loss_balance.experiments.verification.probes import Probe, random_batch, random_weights
from loss_balance.experiments.verification.small_networks import CHAINS, MULTISCALE, SMALL, SPARSE
from loss_balance.reference_models import families
from loss_balance.reference_models.description import weights
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.schemes.adaloss import AdaLoss
from loss_balance.schemes.fixed import Constant

# Per "<name>/<classes>", by an independent counter: parameters, exits (the layer before each, as
# published, from 1: `published_position`), and per exit: multiply_adds and parameters_to_exit with
# all heads so far, multiply_adds_alone with that head only.
COUNTS = json.loads((Path(__file__).parent / "network_counts.json").read_text())

LARGE = ("resann50", "denseann169", "msdnet38")  # at ImageNet's size


def counted(key: str) -> AnytimeSpec:
    """The network that an entry of COUNTS is about."""
    name, classes = key.split("/")
    return families.get(name, num_classes=int(classes))


def published_position(spec: AnytimeSpec, unit: int) -> int:
    """How the publication numbers this unit, from 1.

    DenseNet and the original MSDNet count no transitions; AdaLoss' authors count MSDNet's stem.
    """
    if spec.name.startswith(("denseann", "msdnet-original")):
        kinds = [type(part).__name__ for part in spec.units[: unit + 1]]
        return len([kind for kind in kinds if not kind.endswith("Transition")])
    return unit + (2 if spec.name.startswith("msdnet") else 1)


all_kinds = pytest.mark.parametrize("spec", CHAINS, ids=lambda spec: spec.name)


NO_POSITIONS = [[True, False], [[0]], [0.0, 1.0], [4], [-1], [0, -1], 0, "ab"]


class NetworkContract:
    """Subclass as `TestX(NetworkContract)`, give it a `probe`, and fill in `parts_run`.

    All of a network's `load_weights` and `dump_weights` are called directly.
    """

    probe: Probe

    def parts_run(self, net: Any, images: np.ndarray, exits: int) -> list[str]:
        """Names of the parts computed, in order, while `exits` of `net.anytime` are consumed."""
        raise NotImplementedError

    def loaded(self, spec: AnytimeSpec) -> tuple[Any, dict[str, np.ndarray]]:
        net, given = self.probe.network(spec), random_weights(spec)
        net.load_weights(given)
        return net, given

    @pytest.mark.parametrize("name", families.PUBLISHED)
    def test_parameters_of_the_built_network_equal_the_counts(self, name):
        spec = families.get(name)
        counts = COUNTS[f"{name}/{spec.num_classes}"]
        assert self.probe.trainable_size(spec) == counts["parameters"]

    @all_kinds
    def test_logits_equal_the_oracle(self, spec):
        net, given = self.loaded(spec)
        self.assert_logits_equal_the_oracle(net, given, random_batch(spec)[0])

    @pytest.mark.parametrize("name", LARGE)
    def test_logits_at_the_size_of_imagenet_equal_the_oracle(self, name):
        """Half of 1e-4 of their scale, so that two frameworks are within 1e-4 of each other."""
        net, given = self.loaded(families.get(name))
        self.assert_logits_equal_the_oracle(net, given, random_batch(net.spec, size=1)[0])

    def assert_logits_equal_the_oracle(self, net, given, images):
        expected = Oracle(net.spec, given).logits(images)
        for found, logits in zip(self.probe.predict(net, images), expected, strict=True):
            np.testing.assert_allclose(found, logits, rtol=0, atol=5e-5 * np.abs(logits).max())

    def test_evaluation_changes_nothing(self):
        net, given = self.loaded(SMALL)
        self.probe.predict(net, random_batch(SMALL)[0])
        assert_same(net.dump_weights(), given)

    @all_kinds
    def test_training_uses_batch_statistics_and_keeps_a_running_mean(self, spec):
        net, given = self.loaded(spec)
        images, labels = random_batch(spec)
        oracle = Oracle(spec, given, training=True)
        expected = oracle.logits(images)
        logits, _ = self.probe.gradients(net, images, labels)
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

    @all_kinds
    def test_gradients_reach_every_parameter(self, spec):
        net, _ = self.loaded(spec)
        _, gradients = self.probe.gradients(net, *random_batch(spec))
        assert {name: g.shape for name, g in gradients.items()} == spec.parameters()
        for name, gradient in gradients.items():
            assert np.isfinite(gradient).all(), name
            assert gradient.any(), name

    @all_kinds
    def test_gradients_are_the_slopes_of_the_oracles_loss(self, spec):
        """Along each array's own gradient the loss must rise by its norm, which is the most."""
        self.assert_slopes(spec, None, lambda losses, _: sum(losses))

    @all_kinds
    def test_in_equilibrium_they_are_those_of_what_each_part_is_to_learn(self, spec):
        """A head its own loss; the trunk the mean of all later ones, by their weights."""
        weights = np.linspace(0.2, 1.0, len(spec.exits))

        def learnt(losses, name):
            part = name.split(".")[0]
            if part.startswith("exit"):
                return losses[spec.exits.index(int(part.removeprefix("exit")))]
            unit = int(part.removeprefix("unit")) if part.startswith("unit") else 0
            later = [k for k, at in enumerate(spec.exits) if at >= unit]
            return weights[later] @ np.array(losses)[later] / weights[later].sum()

        self.assert_slopes(spec, (tuple(weights.tolist()), 0.0), learnt)

    def assert_slopes(self, spec, pulls, learnt):
        """The gradients, against differences of what `learnt` makes of the oracle's losses."""
        net, given = self.loaded(spec)
        images, labels = random_batch(spec)
        _, gradients = self.probe.gradients(net, images, labels, pulls)
        whole = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients.values()))
        for name, gradient in gradients.items():
            norm = np.sqrt((gradient.astype(np.float64) ** 2).sum())
            if norm < 1e-3 * whole:
                continue  # below what is asked for: 1e-3 of the gradients' scale

            def loss_at(distance, name=name, direction=gradient / norm):
                moved = given | {name: given[name] + distance * direction}
                return learnt(training_losses(spec, moved, images, labels), name)

            step = 1e-6
            slope = (loss_at(step) - loss_at(-step)) / (2 * step)
            assert slope == pytest.approx(norm, abs=1e-3 * whole), name

    def test_a_constant_weight_trains_as_plain_sgd(self):
        net, given = self.loaded(SMALL)
        images, labels = random_batch(SMALL)
        _, gradients = self.probe.gradients(self.loaded(SMALL)[0], images, labels)
        constant = Constant(len(SMALL.exits))
        self.probe.train(net, constant, images, labels, steps=1, learning_rate=0.1)
        trained = net.dump_weights()
        for name, gradient in gradients.items():
            np.testing.assert_allclose(
                trained[name], given[name] - 0.1 * gradient, atol=1e-6, err_msg=name
            )

    @all_kinds
    def test_training_with_adaloss_lowers_the_losses_it_reports(self, spec):
        net, given = self.loaded(spec)
        images, labels = random_batch(spec)
        scheme = AdaLoss(len(spec.exits))
        losses = self.probe.train(net, scheme, images, labels, steps=5, learning_rate=0.02)
        assert losses.shape == (5, len(spec.exits))
        assert losses[0].sum() == pytest.approx(
            training_loss(spec, given, images, labels), rel=1e-3
        )
        assert losses[-1].sum() < losses[0].sum()

    @all_kinds
    def test_anytime_equals_a_call(self, spec):
        net, _ = self.loaded(spec)
        images, _ = random_batch(spec)
        answers = list(self.probe.anytime(net, images))
        for found, wanted in zip(answers, self.probe.predict(net, images), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)

    @all_kinds
    def test_anytime_goes_on_with_the_samples_that_are_kept(self, spec):
        net, _ = self.loaded(spec)
        images, _ = random_batch(spec)
        answers = self.probe.anytime(net, images)
        next(answers)
        kept = answers.send(np.array([2, 0]))
        for k, wanted in enumerate(self.probe.predict(net, images)[1:]):
            if k > 0:
                kept = next(answers)
            np.testing.assert_allclose(kept, wanted[[2, 0]], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("kept", NO_POSITIONS, ids=repr)
    def test_what_are_no_positions_in_the_batch_is_refused_in_the_same_words(self, kept):
        net, _ = self.loaded(SPARSE)
        answers = self.probe.anytime(net, random_batch(SPARSE)[0])
        next(answers)
        words = r"vector of whole numbers, positions in the current batch of 4, got "
        with pytest.raises(ValueError, match=words):
            answers.send(kept)

    def test_what_are_no_positions_once_samples_have_left_is_refused(self):
        net, _ = self.loaded(SPARSE)
        answers = self.probe.anytime(net, random_batch(SPARSE)[0])
        next(answers)
        answers.send([3, 1])
        with pytest.raises(ValueError, match="in the current batch of 2, got"):
            answers.send([2])

    def test_a_sample_may_go_on_twice_and_none_may(self):
        net, _ = self.loaded(SPARSE)
        images, _ = random_batch(SPARSE)
        answers = self.probe.anytime(net, images)
        first = next(answers)
        again = answers.send([1, 1, 0])
        np.testing.assert_allclose(again[0], again[1], rtol=1e-3, atol=1e-4)
        assert len(again) == 3
        assert answers.send([]).shape == (0, first.shape[1])

    @all_kinds
    def test_anytime_computes_nothing_beyond_the_exits_consumed(self, spec):
        for exits in range(1, len(spec.exits) + 1):
            net = self.probe.network(spec)
            expected = ["stem"]
            for unit in range(spec.exits[exits - 1] + 1):
                expected += [f"unit{unit}"] + [f"exit{unit}"] * (unit in spec.exits)
            assert self.parts_run(net, random_batch(spec)[0], exits) == expected

    @pytest.mark.parametrize(
        ("spec", "exit_index"),
        [(spec, k) for spec in (SPARSE, MULTISCALE) for k in range(len(spec.exits))],
    )
    def test_a_single_exit_answers_as_that_exit_of_the_whole(self, spec, exit_index):
        net, given = self.loaded(spec)
        images, _ = random_batch(spec)
        cut = spec.single_exit(exit_index)
        alone = self.probe.network(cut)
        kept = cut.parameters() | cut.statistics()
        alone.load_weights({name: given[name] for name in kept})
        (found,) = self.probe.predict(alone, images)
        np.testing.assert_allclose(
            found, self.probe.predict(net, images)[exit_index], rtol=1e-5, atol=1e-6
        )

    @all_kinds
    def test_weights_come_back_exactly_as_they_went_in(self, spec):
        net, given = self.loaded(spec)
        assert_same(net.dump_weights(), given)

    def test_dumped_and_loaded_arrays_are_copies(self):
        net, given = self.loaded(SMALL)
        kept = {name: array.copy() for name, array in given.items()}
        for array in (*given.values(), *net.dump_weights().values()):
            array += 1.0
        assert_same(net.dump_weights(), kept)

    def test_the_seed_decides_the_first_weights(self):
        assert_same(self.probe.network(SMALL, seed=3).dump_weights(), weights.initialise(SMALL, 3))

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
        net = self.probe.network(SMALL)
        with pytest.raises(ValueError, match="expected images of shape"):
            self.probe.predict(net, np.zeros(shape, np.float32))

    def test_a_part_that_is_unknown_is_refused(self):
        class Unknown(type(SMALL.stem)):
            pass

        spec = dataclasses.replace(SMALL, stem=Unknown(3, 4))
        with pytest.raises(ValueError, match=r"must be one of \['ConvStem', .*got .*Unknown"):
            self.probe.network(spec)

    def test_weights_from_read_only_float64_arrays_are_taken(self):
        given = {name: w.astype(np.float64) for name, w in random_weights(SMALL).items()}
        for array in given.values():
            array.flags.writeable = False
        net = self.probe.network(SMALL)
        net.load_weights(given)
        assert_same(net.dump_weights(), random_weights(SMALL))


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Same names in the same order, same dtype, same bits."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)
