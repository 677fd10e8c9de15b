"""What every framework's learner promises: subclass `LearnerContract` and name the framework.

Needs scikit-learn for its data, so import it after `importorskip`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from support.experiments.standardising import standardise
from support.networks.numpy_network import Oracle as Network

from loss_balance import AdaLoss, Constant, GradientNorm, Static
from loss_balance.experiments.data import augment
from loss_balance.experiments.data.sources import Source, load
from loss_balance.experiments.training import feed
from loss_balance.experiments.training.engine import Engine
from loss_balance.experiments.training.learners.by_framework import learner
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.recipes import Recipe
from loss_balance.experiments.training.schemes import Coupling
from loss_balance.experiments.verification.oracle import Oracle as Weights
from loss_balance.reference_models import families
from loss_balance.reference_models.description.weights import initialise

DATA = load("digits")  # 21 batches of 64
SPEC = families.resann(1, 4, 10, input_shape=DATA.input_shape)
ADALOSS = AdaLoss(3, decay=0.9)


USUAL = Coupling()
GUIDED = {"coupling": Coupling(equilibrium=True, pull=0.75, guidance=1.0, rising=True)}
FIRST_ORDER = {"scheme": GradientNorm(3), "coupling": Coupling(equilibrium=True)}


def make(
    framework,
    data=DATA,
    *,
    scheme=ADALOSS,
    seed=0,
    epochs=3,
    precision="float32",
    coupling=USUAL,
    devices=1,
    batch_norm="global",
    **recipe,
):
    """A run; with the same arguments the same one."""
    spec = families.resann(1, 4, 10, input_shape=data.input_shape)
    engine = Engine(framework, precision=precision, devices=devices, batch_norm=batch_norm)
    recipe = Recipe(epochs=epochs, **recipe)
    return Run(
        name="a",
        spec=spec,
        scheme=scheme,
        recipe=recipe,
        seed=seed,
        source=Source("digits"),
        fingerprint=data.fingerprint(),
        engine=engine,
        coupling=coupling,
    )


def batches(count=None, data=DATA):
    """Of the first epoch."""
    return islice(feed.training(data, Recipe(epochs=3), seed=0, epoch=0), count)


def ignore(step, loss):
    """For who wants no reports."""


def cross_entropies(logits, labels):
    """(num_exits, B), of float64 logits."""
    shifted = np.stack(logits) - np.max(logits, axis=2, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=2))
    return log_sum - shifted[:, np.arange(len(labels)), labels]


def assert_same_arrays(left, right):
    assert set(left) == set(right)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name])


class LearnerContract:
    framework: str

    def learner(self, data=DATA, **options):
        return learner(make(self.framework, data, **options), data)

    def test_it_starts_from_the_weights_of_the_seed(self):
        assert_same_arrays(self.learner(seed=5).weights(), initialise(SPEC, 5))

    def test_the_first_losses_are_those_of_the_network_in_float64(self):
        (batch,) = batches(1)
        net = Network(SPEC, initialise(SPEC, 0), training=True)
        logits = net.logits(standardise(DATA, DATA.x_train[batch.chosen]))
        expected = cross_entropies(logits, DATA.y_train[batch.chosen]).mean(axis=1)
        found = self.learner().train_epoch([batch], 0.1, ignore)
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    def test_evaluation_is_that_of_the_network_in_float64_and_changes_nothing(self):
        learner = self.learner()
        learner.train_epoch(batches(5), 0.1, ignore)
        before = learner.state()
        x, y = DATA.x_train, DATA.y_train  # in batches of 500, 500 and 347
        loss, error = learner.evaluate(feed.evaluation(DATA, x, y))
        logits = np.stack(Network(SPEC, learner.weights()).logits(standardise(DATA, x)))
        np.testing.assert_allclose(loss, cross_entropies(logits, y).mean(axis=1), rtol=1e-5)
        wrong = (logits.argmax(axis=2) != y).mean(axis=1)
        np.testing.assert_allclose(error, wrong, atol=1.5 / len(y))  # a tie may fall either way
        assert_same_arrays(learner.state(), before)

    def test_an_epoch_is_its_steps_reported_every_tenth(self):
        whole, steps, reports = self.learner(), self.learner(), []
        mean = whole.train_epoch(batches(), 0.1, lambda *report: reports.append(report))
        losses = [steps.train_epoch([batch], 0.1, ignore) for batch in batches()]
        np.testing.assert_allclose(mean, np.mean(losses, axis=0), rtol=1e-6)
        assert [step for step, _ in reports] == [0, 10, 20]
        assert [loss for _, loss in reports] == [each[-1] for each in losses[::10]]
        assert_same_arrays(whole.state(), steps.state())

    def test_the_loss_weights_are_the_oracles_for_the_losses_it_reports(self):
        learner, oracle = self.learner(), Weights(3, decay=ADALOSS.decay)
        for batch in batches(6):
            losses = learner.train_epoch([batch], 0.1, ignore).tolist()
            assert learner.loss_weights() == pytest.approx(oracle.update(losses), rel=1e-5)

    def moved(self, rates, **options):
        """How far each parameter went on one batch."""
        learner = self.learner(scheme=Constant(3), **options)
        before = learner.weights()
        for rate in rates:
            learner.train_epoch(batches(1), rate, ignore)
        after = learner.weights()
        return {name: after[name] - before[name] for name in SPEC.parameters()}

    def test_the_rate_comes_after_momentum(self):
        """A first step at rate 0 leaves a gradient behind, of which 0.9 comes with the next."""
        once, twice = (self.moved(rates, weight_decay=0.25) for rates in ([0.5], [0.0, 0.5]))
        for name, change in once.items():
            np.testing.assert_allclose(twice[name], 1.9 * change, rtol=1e-3, atol=1e-6)
        assert max(np.abs(change).max() for change in once.values()) > 0.1

    def test_weight_decay_is_on_kernels_alone(self):
        plain, decayed = (self.moved([0.5], weight_decay=decay) for decay in (0.0, 0.25))
        for name, first in initialise(SPEC, 0).items():
            if name in plain:
                expected = -0.5 * 0.25 * first if name.endswith(".kernel") else 0.0
                np.testing.assert_allclose(decayed[name] - plain[name], expected, atol=1e-6)

    def test_the_weighted_sum_is_what_is_trained(self):
        learner = self.learner(scheme=Static((0.0, 1.0, 0.0)), weight_decay=0.0)
        learner.train_epoch(batches(2), 0.1, ignore)
        first, after = initialise(SPEC, 0), learner.weights()
        moved = {n.split(".")[0] for n in SPEC.parameters() if (first[n] != after[n]).any()}
        reached = {f"unit{i}" for i in range(SPEC.exits[1] + 1)}
        assert moved == {"stem", *reached, f"exit{SPEC.exits[1]}"}

    @pytest.mark.parametrize("how", [{}, GUIDED, FIRST_ORDER], ids=["usual", "guided", "norms"])
    def test_a_state_continues_exactly_in_another_learner(self, how):
        one, other = self.learner(**how), self.learner(seed=7, **how)
        one.train_epoch(batches(3), 0.1, ignore)
        kept = one.state()
        copies = {name: array.copy() for name, array in kept.items()}
        other.load_state(kept)
        assert_same_arrays(other.state(), copies)
        found = [learner.train_epoch(batches(3), 0.01, ignore) for learner in (one, other)]
        np.testing.assert_array_equal(*found)
        assert_same_arrays(one.state(), other.state())
        assert_same_arrays(kept, copies)  # training did not reach into what was handed out or in
        assert {array.dtype for array in kept.values() if array.dtype.kind == "f"} == {
            np.dtype(np.float32)
        }

    def test_in_equilibrium_a_weight_of_zero_leaves_the_head_its_loss(self):
        weights = {"scheme": Static((0.0, 1.0, 0.0)), "weight_decay": 0.0}
        learner = self.learner(**weights, coupling=Coupling(equilibrium=True))
        learner.train_epoch(batches(2), 0.1, ignore)
        first, after = initialise(SPEC, 0), learner.weights()
        moved = {n.split(".")[0] for n in SPEC.parameters() if (first[n] != after[n]).any()}
        heads = {f"exit{i}" for i in SPEC.exits}
        # Behind the exit that pulls, the trunk has what comes from deeper: nothing.
        assert moved == {"stem", *(f"unit{i}" for i in range(SPEC.exits[1] + 1)), *heads}

    def test_guidance_rises_from_nothing_and_then_moves_early_exits(self):
        both = [
            self.learner(
                scheme=Static((0.1, 0.5, 1.0)),
                coupling=replace(GUIDED["coupling"], guidance=strength),
            )
            for strength in (1.0, 0.0)
        ]
        for step, batch in enumerate(batches(3)):
            for one in both:
                one.train_epoch([batch], 0.1, ignore)
            guided, plain = (one.weights()["exit0.linear.kernel"] for one in both)
            assert (np.abs(guided - plain).max() > 1e-6) == (step > 0)

    def test_a_state_that_does_not_fit_is_refused(self):
        learner = self.learner()
        learner.train_epoch(batches(1), 0.1, ignore)
        state = learner.state()
        for name, array in state.items():
            without = {other: value for other, value in state.items() if other != name}
            wrongs = [without, state | {name: np.stack([array, array])}]
            if name.endswith(("/recent", "/pending", "/identity")):
                del wrongs[0]  # states of version 0.1 lack them
            for wrong in wrongs:
                with pytest.raises((ValueError, KeyError)):
                    learner.load_state(wrong)

    def test_images_that_come_with_their_batch_train_alike(self):
        x = np.random.default_rng(0).integers(256, size=(8, 224, 224, 3), dtype=np.uint8)
        flat = np.zeros(3, np.float32), np.full(3, 128, np.float32)
        resident = replace(DATA, x_train=x, y_train=np.arange(8), mean=flat[0], std=flat[1])
        names = np.array([f"{i}.jpg".encode() for i in range(8)])
        streamed = replace(resident, x_train=names, x_test=names, root=Path())
        still = augment.draws(augment.Augmentation(), 0, 0, 4)
        chosen, order = np.array([6, 1, 3, 2], np.int32), np.arange(4, dtype=np.int32)
        apart = feed.Batch(order, still, x[chosen], chosen.astype(np.int64))
        one, other = self.learner(resident), self.learner(streamed)
        expected = one.train_epoch([feed.Batch(chosen, still)], 0.1, ignore)
        np.testing.assert_allclose(other.train_epoch([apart], 0.1, ignore), expected, rtol=1e-5)

    def test_images_are_augmented_by_the_draws_of_their_batch(self):
        policy = augment.AUGMENTATIONS["crop-blur"]
        (batch,) = batches(1, replace(DATA, augmentation=policy))
        constants = augment.constants(policy, DATA.input_shape, DATA.mean, DATA.std)
        x = augment.augmented(DATA.x_train, batch.chosen, batch.draws, constants, np)
        net = Network(SPEC, initialise(SPEC, 0), training=True)
        expected = cross_entropies(net.logits(x), DATA.y_train[batch.chosen]).mean(axis=1)
        learner = self.learner(replace(DATA, augmentation=policy))
        np.testing.assert_allclose(learner.train_epoch([batch], 0.1, ignore), expected, rtol=1e-4)

    def test_bfloat16_rounds_maps_not_what_is_kept(self):
        exact, rounded = self.learner(), self.learner(precision="bfloat16")
        found = [learner.train_epoch(batches(4), 0.1, ignore) for learner in (exact, rounded)]
        assert 1e-6 < np.abs(found[1] / found[0] - 1).max() < 1e-2
        loss, _ = rounded.evaluate(feed.evaluation(DATA, DATA.x_test, DATA.y_test))
        logits = Network(SPEC, rounded.weights()).logits(standardise(DATA, DATA.x_test))
        expected = cross_entropies(logits, DATA.y_test).mean(axis=1)
        assert 1e-6 < np.abs(loss / expected - 1).max() < 1e-2
        kinds = {array.dtype for array in rounded.state().values() if array.dtype.kind == "f"}
        assert kinds == {np.dtype(np.float32)}
        assert (rounded.weights()["stem.conv.kernel"].view(np.uint32) & 0xFFFF).any()
