"""The contract of `with_exits` in every framework, on one small backbone that each builds natively.

The backbone takes images (B, 8, 8, 3) through three stages, named layers or modules:

    early   conv3x3 to 8 channels without bias, batch norm, ReLU
    middle  conv3x3 with stride 2 to 8 channels without bias, ReLU
    late    conv3x3 to 16 channels without bias, ReLU
    then    the mean over positions, dropout of one half, a linear layer to 5 logits

Only the stride makes maps smaller. `early` and `middle` give the features after the ReLU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from support.networks.contract import NO_POSITIONS, assert_same

from loss_balance.anytime import calibrate, early_exit, predict

INPUT_SHAPE, CLASSES = (8, 8, 3), 5
STAGES = ("early", "middle", "late")
EXITS = ("early", "middle")
FEATURES = {"early": (8, 8, 8), "middle": (4, 4, 8)}  # (H, W, C)

# Of each exit by hand, with the default heads: a batch norm of 8 channels, linear from 8 to 5.
HEAD = 8 * 5, 2 * 8 + 8 * 5 + 5
MULTIPLY_ADDS = (
    64 * 9 * 3 * 8 + HEAD[0],
    64 * 9 * 3 * 8 + 16 * 9 * 8 * 8 + 2 * HEAD[0],
    64 * 9 * 3 * 8 + 16 * 9 * 8 * 8 + 16 * 9 * 8 * 16 + 16 * 5 + 2 * HEAD[0],
)
PARAMETERS = (
    9 * 3 * 8 + 16 + HEAD[1],
    9 * 3 * 8 + 16 + 9 * 8 * 8 + 2 * HEAD[1],
    9 * 3 * 8 + 16 + 9 * 8 * 8 + 9 * 8 * 16 + 16 * 5 + 5 + 2 * HEAD[1],
)


def batch(count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Images (B, 8, 8, 3) and labels (B,)."""
    generator = np.random.default_rng(0)
    images = generator.normal(size=(count, *INPUT_SHAPE)).astype(np.float32)
    return images, generator.integers(CLASSES, size=count)


def random_weights_like(weights: Mapping[str, np.ndarray], seed: int = 1) -> dict[str, np.ndarray]:
    """Weights under the same names; vectors positive, so that variances are."""
    generator = np.random.default_rng(seed)
    low = {True: 0.1, False: -0.4}
    return {
        name: generator.uniform(low[array.ndim == 1], 0.5, array.shape).astype(array.dtype)
        for name, array in weights.items()
    }


class OwnExitsContract:
    """Subclass as `TestX(OwnExitsContract)` and fill in the methods that raise.

    `dump_weights`, `load_weights`, `costs`, `names`, `input_shape` and `num_classes` are asked of
    the network itself.
    """

    def make(self, exits: Any = EXITS) -> tuple[Any, Any]:
        """(`with_exits` of a new backbone, a function: the backbone's own logits in evaluation)."""
        raise NotImplementedError

    def own_head(self, shape: tuple[int, ...]) -> Any:
        """A head for features (H, W, C): their mean and a linear layer to 5 logits.

        For a shape with a fourth number as many logits as that says.
        """
        raise NotImplementedError

    def to_native(self, images: np.ndarray) -> Any:
        """Images (B, H, W, C) as the framework's networks take them."""
        raise NotImplementedError

    def to_numpy(self, logits: Any) -> np.ndarray:
        raise NotImplementedError

    def call(self, net: Any, images: Any, fork: Any = None) -> list[Any]:
        """The call in evaluation mode, on native images."""
        raise NotImplementedError

    def computed(self, net: Any, images: np.ndarray, exits: int) -> list[str]:
        """Which of STAGES ran, in order, while `exits` of `net.anytime` were consumed."""
        raise NotImplementedError

    def gradients(
        self,
        net: Any,
        images: np.ndarray,
        labels: np.ndarray,
        coefficients: Sequence[float],
        pulls: tuple[float, ...] | None = None,
    ) -> dict[str, np.ndarray]:
        """Of the sum of coefficient times mean cross-entropy, in evaluation mode.

        By the names of `dump_weights`, trainable ones. With `pulls` through the forks of a balancer
        `Static(pulls)` in equilibrium.
        """
        raise NotImplementedError

    def shape_of(self, features: tuple[int, ...]) -> tuple[int, ...]:
        """How the framework has a map (H, W, C)."""
        return features

    # What follows needs no more.

    def filled(self, exits: Any = EXITS) -> tuple[Any, Any]:
        net, backbone = self.make(exits)
        net.load_weights(random_weights_like(net.dump_weights()))
        return net, backbone

    def logits(self, net: Any, images: np.ndarray) -> list[np.ndarray]:
        return [self.to_numpy(x) for x in self.call(net, self.to_native(images))]

    def test_it_says_what_it_is(self):
        net, _ = self.make()
        assert tuple(net.names) == (*EXITS, "output")
        assert tuple(net.input_shape) == INPUT_SHAPE
        assert net.num_classes == CLASSES

    def test_the_last_exit_is_the_backbone_itself(self):
        net, backbone = self.filled()
        images, _ = batch()
        logits = self.logits(net, images)
        assert [x.shape for x in logits] == [(4, CLASSES)] * 3
        expected = self.to_numpy(backbone(self.to_native(images)))
        np.testing.assert_allclose(logits[-1], expected, rtol=1e-6, atol=1e-6)
        assert min(np.abs(x).max() for x in logits) > 1e-3

    def test_weights_are_shared_with_the_backbone(self):
        net, backbone = self.filled()
        images = self.to_native(batch()[0])
        before = self.to_numpy(backbone(images))
        net.load_weights(random_weights_like(net.dump_weights(), seed=2))
        assert np.abs(self.to_numpy(backbone(images)) - before).max() > 1e-2

    def test_anytime_equals_a_call_in_evaluation_mode(self):
        net, _ = self.filled()
        images, _ = batch()
        expected = self.logits(net, images)
        answers = [self.to_numpy(x) for x in net.anytime(self.to_native(images))]
        for found, wanted in zip(answers, expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)

    def test_anytime_computes_nothing_beyond_the_exits_consumed(self):
        for exits in (1, 2, 3):
            net, _ = self.make()
            assert self.computed(net, batch()[0], exits) == list(STAGES[:exits])

    def test_anytime_goes_on_with_the_samples_that_are_kept(self):
        net, _ = self.filled()
        images, _ = batch()
        expected = self.logits(net, images)
        answers = net.anytime(self.to_native(images))
        next(answers)
        found = [answers.send(np.array([2, 0])), answers.send([1])]
        np.testing.assert_allclose(
            self.to_numpy(found[0]), expected[1][[2, 0]], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(self.to_numpy(found[1]), expected[2][[0]], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("kept", NO_POSITIONS, ids=repr)
    def test_what_are_no_positions_in_the_batch_is_refused_in_the_same_words(self, kept):
        net, _ = self.make()
        answers = net.anytime(self.to_native(batch()[0]))
        next(answers)
        words = r"vector of whole numbers, positions in the current batch of 4, got "
        with pytest.raises(ValueError, match=words):
            answers.send(kept)

    def test_images_of_another_shape_are_refused(self):
        net, _ = self.make()
        wrong = self.to_native(np.zeros((2, 8, 7, 3), np.float32))
        with pytest.raises(ValueError, match="expected images of shape"):
            self.call(net, wrong)
        with pytest.raises(ValueError, match="expected images of shape"):
            net.anytime(wrong)  # before the first exit is asked for

    def test_it_answers_by_a_deadline_and_lets_samples_leave_early(self):
        net, _ = self.filled()
        images, _ = batch()
        expected = self.logits(net, images)
        native = self.to_native(images)
        prediction = predict(net.anytime(native), max_exits=2)
        assert prediction.exit == 1
        np.testing.assert_allclose(
            self.to_numpy(prediction.value), expected[1], rtol=1e-4, atol=1e-5
        )
        for confidence, at in ((0.0, 0), (1.1, 2)):
            left = early_exit(net, native, confidence)
            assert left.exits.tolist() == [at] * 4
            np.testing.assert_allclose(left.logits, expected[at], rtol=1e-4, atol=1e-5)
        assert len(calibrate(net, native, repeats=2)) == 3

    def test_costs_are_those_counted_by_hand(self):
        net, _ = self.make()
        costs = net.costs()
        assert tuple(cost.multiply_adds for cost in costs) == MULTIPLY_ADDS
        assert tuple(cost.parameters for cost in costs) == PARAMETERS

    def test_a_fork_is_called_where_each_exit_branches_off(self):
        net, _ = self.filled()
        images, _ = batch()
        called = []

        def fork(features, index):
            called.append((index, sorted(features.shape)))
            return features * 0.0, features

        plain, forked = self.logits(net, images), self.call(net, self.to_native(images), fork)
        shapes = [(4, *FEATURES["early"]), (4, *FEATURES["middle"]), (4, *FEATURES["middle"])]
        assert called == [(k, sorted(shape)) for k, shape in enumerate(shapes)]
        for k, (found, wanted) in enumerate(zip(forked, plain, strict=True)):
            # The head has read zeros alone; what goes on is as it was.
            moved = self.to_numpy(found)
            assert np.abs(moved - moved[:1]).max() < 1e-6
            assert np.abs(moved - wanted).max() > 1e-3, k

    def test_in_equilibrium_the_gradients_are_those_of_the_formula(self):
        """A head has its own loss's; the trunk the mean of all later ones, by their weights."""
        net, _ = self.filled()
        images, labels = batch()
        pulls = (0.2, 1.0, 0.5)
        single = [self.gradients(net, images, labels, row) for row in np.eye(3).tolist()]
        found = self.gradients(net, images, labels, (1.0, 1.0, 1.0), pulls)
        readers = set()
        assert set(found) == set(single[0])
        for name, gradient in found.items():
            reached = [k for k in range(3) if np.abs(single[k][name]).max() > 0.0]
            readers.add(tuple(reached))
            share = np.array(pulls)[reached] / np.array(pulls)[reached].sum()
            wanted = sum(s * single[k][name] for s, k in zip(share, reached, strict=True))
            np.testing.assert_allclose(
                gradient, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max(), err_msg=name
            )
        assert readers == {(0, 1, 2), (1, 2), (2,), (0,), (1,)}

    def test_it_is_cut_after_one_exit(self):
        net, _ = self.filled()
        images, _ = batch()
        expected, weights = self.logits(net, images), net.dump_weights()
        for k, cost in enumerate(net.costs()):
            cut = net.single_exit(k)
            assert tuple(cut.names) == (net.names[k],)
            (found,) = self.logits(cut, images)
            np.testing.assert_allclose(found, expected[k], rtol=1e-5, atol=1e-6)
            (alone,) = cut.costs()
            heads_before = min(k, 2)
            assert alone.multiply_adds == cost.multiply_adds - heads_before * HEAD[0]
            assert alone.parameters == cost.parameters - heads_before * HEAD[1]
            assert len(cut.dump_weights()) < len(weights)
            assert cut.trained_names() < set(cut.dump_weights()) < set(weights)

    def test_weights_come_back_exactly_as_they_went_in(self):
        net, _ = self.make()
        given = random_weights_like(net.dump_weights(), seed=3)
        net.load_weights(given)
        assert_same(net.dump_weights(), given)
        other, _ = self.make()
        other.load_weights(net.dump_weights())
        assert_same(other.dump_weights(), given)

    def test_weights_that_do_not_fit_change_nothing(self):
        net, _ = self.filled()
        before = net.dump_weights()
        first, second, *_ = before
        wrong = random_weights_like(before, seed=9) | {"nonsense": np.zeros(1)}
        wrong[second] = np.zeros((7, *np.shape(wrong[second])), np.float32)
        del wrong[first]
        with pytest.raises(ValueError, match=r"missing .*unknown nonsense.* has shape ") as caught:
            net.load_weights(wrong)
        assert first in str(caught.value)
        assert second in str(caught.value)
        assert_same(net.dump_weights(), before)

    def test_a_head_may_be_ones_own_or_made_for_the_shape(self):
        shapes = []

        def made(shape):
            shapes.append(tuple(shape))
            return self.own_head(shape)

        taken = self.own_head(FEATURES["early"])
        net, _ = self.make({"early": taken, "middle": made})
        assert shapes == [self.shape_of(FEATURES["middle"])]
        assert any(head is taken for head in net_heads(net))
        heads = [cost.parameters for cost in net.costs()]
        assert heads[0] == 9 * 3 * 8 + 16 + 8 * 5 + 5  # no batch norm
        assert len(self.logits(net, batch()[0])) == 3

    @pytest.mark.parametrize(
        ("exits", "message"),
        [
            ([], "exits must name a layer or more before the output, got none"),
            ({}, "exits must name a layer or more before the output, got none"),
            ("early", "exits must be a mapping from names to heads, or a sequence of names"),
            (["early", "early"], "exits must name each layer once, got"),
            (["early", "output"], "exits must be before the output, which always is the last"),
            (["erly"], "exits must be names of the model's .*, got 'erly'; close to it: early"),
            (["middle", "early"], "must be in order of computation, got 'early' after 'middle'"),
            ({"early": 3}, "heads must be .*, or None, got 3 for 'early'"),
        ],
    )
    def test_exits_that_are_none_are_refused(self, exits, message):
        with pytest.raises(ValueError, match=message):
            self.make(exits)

    def test_a_head_with_other_classes_is_refused(self):
        with pytest.raises(ValueError, match=r"'early' must give logits \(B, 5\) .*, got \(.*8\)"):
            self.make({"early": lambda shape: self.own_head((*shape, 8))})


def net_heads(net: Any) -> list[Any]:
    """The heads, whatever holds them."""
    return list(net.heads.values()) if hasattr(net.heads, "values") else list(net.heads)
