"""The blocks of docs/guides with Lightning, Accelerate and Transformers themselves."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from support.docs.loop_page import go_on, need
from support.docs.loop_torch import assert_saw, recorded, standing, steps_of, undivided

RAGGED = 160  # examples: 10 batches, so that the last group of 4 has 2

# What the libraries say of each other and of a machine like this one.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        "Starting from v1.9.0, `tensorboardX` has been removed:UserWarning",
        r".isinstance\(treespec, LeafSpec\). is deprecated:FutureWarning:lightning",
        r"The number of training batches \(\d+\) is smaller than the logging interval:UserWarning",
        "The 'train_dataloader' does not have many workers:UserWarning",
        "'pin_memory' argument is set as true but no accelerator is found:UserWarning",
    )
]


def groups(seen):
    """The losses of each update: an epoch's last group of micro-batches has 2."""
    assert len(seen) % 10 == 0
    return [one for i in range(0, len(seen), 10) for one in undivided(seen[i : i + 10], 4)]


def test_lightning_moves_the_averages_once_a_step_also_at_the_end_of_an_epoch():
    need("lightning")
    page = standing(RAGGED)
    seen = recorded(page)
    go_on(page, "torch", "lightning")
    assert page.trainer.global_step == len(groups(seen)) == 6
    assert_saw(page.module.balance, groups(seen))
    checkpoint = torch.load(page.trainer.checkpoint_callback.best_model_path, weights_only=True)
    resumed = page.Module()
    resumed.load_state_dict(checkpoint["state_dict"])
    assert_saw(resumed.balance, groups(seen))


def test_lightning_with_lbfgs_observes_once_a_step():
    need("lightning")
    page = standing()
    seen = recorded(page)
    go_on(page, "torch", "lightning-lbfgs")
    assert page.module.balance.step == page.trainer.global_step == 16
    assert len(seen) > 2 * 16


def test_accelerate_moves_the_averages_once_a_step_and_saves_them():
    need("accelerate")
    page = standing(RAGGED)
    steps, seen = steps_of(page.optimizer), recorded(page)
    go_on(page, "torch", "accelerate")
    assert len(steps) == len(groups(seen)) == 3
    assert_saw(page.balance, groups(seen))
    page.accelerator.save_state("saved")
    page.balance.reset()
    page.accelerator.load_state("saved")
    assert_saw(page.balance, groups(seen))


def test_the_hugging_face_trainer_moves_the_averages_once_a_step_and_saves_them():
    need("transformers")
    page = standing(RAGGED)
    seen = recorded(page)
    go_on(page, "torch", "trainer")
    trainer, model = page.trainer, page.trainer.model
    assert trainer.state.global_step == len(groups(seen)) == 6
    assert_saw(model.balance, groups(seen))
    trainer.save_model("saved")
    assert_saw(page.Model.from_pretrained("saved").balance, groups(seen))
    batch = {name: torch.stack([one[name] for one in page.examples[:4]]) for name in "xy"}
    trainer.compute_loss(model.eval(), batch)
    assert model.balance.step == 6
