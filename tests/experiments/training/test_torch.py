"""PyTorch's learner and the runs it is trained in."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")
torch = pytest.importorskip("torch")
from support.experiments.learners import LearnerContract
from support.experiments.run_contract import RunContract

from loss_balance.experiments.training.learners.torch import exit_losses


@pytest.fixture(autouse=True)
def _own_number_of_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class TestTorchLearner(LearnerContract):
    framework = "torch"


class TestTorchRuns(RunContract):
    framework = "torch"


def test_exit_losses_are_the_cross_entropies_one_by_one():
    logits = torch.randn(3, 5, 7)
    labels = torch.randint(7, (5,))
    expected = [torch.nn.functional.cross_entropy(x, labels, reduction="none") for x in logits]
    torch.testing.assert_close(exit_losses(logits, labels), torch.stack(expected))
