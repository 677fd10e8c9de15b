"""Balancers in Hugging Face's Trainer and in Accelerate, and the callback."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from support.docs.integrations import shown
from support.docs.loop_page import need

from loss_balance.backends.torch import Balancer

pytestmark = [
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning"),
]


@pytest.fixture
def page():
    """The block of the page, whose run saved a checkpoint at steps 3 and 6."""
    need("transformers")
    pytest.importorskip("tensorboard")
    torch.manual_seed(0)
    return shown("trainer")


def trainer(page, **changed):
    """A fresh trainer like the page's."""
    for name, value in changed.items():
        setattr(page.arguments, name, value)
    torch.manual_seed(1)
    model = page.Model(page.PreTrainedConfig())
    return page.BalancedTrainer(model, page.arguments, train_dataset=page.examples)


def logged(trainer):
    """The average of the first loss by step, of every row that has it."""
    key = "loss_average/depth"
    return {row["step"]: row[key] for row in trainer.state.log_history if key in row}


def board(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (path,) = Path(folder).glob("**/events*")
    events = EventAccumulator(str(path.parent))
    events.Reload()
    return {e.step: e.value for e in events.Scalars("train/loss_average/depth")}


def test_the_weights_are_in_the_trainers_history_and_in_what_it_reports_to(page):
    rows = page.trainer.state.log_history
    found = logged(page.trainer)
    assert list(found) == [2, 4, 6]
    assert len(set(found.values())) == 3
    assert found[6] == page.trainer.model.balance.metrics()["loss_average/depth"]
    assert all(("loss" in row) == ("loss_weight/depth" in row) for row in rows)
    assert board("out") == pytest.approx(found)


def test_a_run_resumed_from_a_checkpoint_ends_as_the_one_that_went_through(page):
    through = trainer(page, output_dir="other")
    through.train()
    assert through.model.balance.step == 6
    resumed = trainer(page)
    resumed.add_callback(page.LossWeightLogger(resumed))
    resumed.train(resume_from_checkpoint="other/checkpoint-3")
    assert list(logged(resumed)) == [4, 6]
    for name, value in through.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_the_callback_asks_in_no_step_that_is_not_logged_and_logs_in_its_own_rhythm(page):
    one = trainer(page, logging_steps=100)
    asked, original = [], one.model.balance.metrics
    one.model.balance.metrics = lambda: asked.append(int(one.state.global_step)) or original()
    one.add_callback(page.LossWeightLogger(one, every=3))
    one.train()
    assert asked == [3, 6] == list(logged(one))


def test_in_bfloat16_the_state_stays_in_float32_and_the_clock_is_the_optimizers(page):
    one = trainer(page, bf16=True)
    one.train()
    state = one.model.balance.export_state()
    assert state["average"].dtype == "float32"
    assert state["step"] == one.state.global_step == 6


def test_a_model_without_a_balancer_is_refused(page):
    with pytest.raises(ValueError, match=r"^LossWeightLogger must have .* got Linear without$"):
        page.LossWeightLogger(page.Trainer(torch.nn.Linear(8, 2), page.arguments))
    with pytest.raises(ValueError, match=r"^every must be a whole number of at least 1, got -1$"):
        page.LossWeightLogger(page.trainer, every=-1)


def test_the_accelerate_block_logs_through_its_tracker_and_saves_the_balancer():
    need("accelerate")
    pytest.importorskip("tensorboard")
    page = shown("accelerate")
    state = page.balance.export_state()
    assert state["step"] == page.step == 3
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator("logs/balanced")
    events.Reload()
    assert [e.step for e in events.Scalars("loss_weight/depth")] == [2]
    page.balance.reset()
    page.accelerator.load_state("saved")
    assert {k: v.tolist() for k, v in page.balance.export_state().items()} == {
        k: v.tolist() for k, v in state.items()
    }
    assert isinstance(page.balance, Balancer)
