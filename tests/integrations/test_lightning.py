"""Balancers in a LightningModule, and the callback, with Lightning under both of its names."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from support.docs.integrations import shown
from support.docs.loop_page import need

from loss_balance import AdaLoss
from loss_balance.backends.torch import Balancer

LIBRARIES = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}

# What Lightning says of other libraries and of a machine like this one.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        "Starting from v1.9.0, `tensorboardX` has been removed:UserWarning",
        r".isinstance\(treespec, LeafSpec\). is deprecated:FutureWarning",
        "The 'train_dataloader' does not have many workers:UserWarning",
        r"The number of training batches \(\d+\) is smaller than the logging interval:UserWarning",
        "Checkpoint directory .* exists and is not empty:UserWarning",
    )
]


@pytest.fixture(params=LIBRARIES, ids=str)
def either(request):
    need(request.param)
    return Kit(request.param)


@pytest.fixture
def kit():
    need("lightning")
    return Kit("lightning")


class Kit:
    """Lightning by one of its names, a module with a balancer and batches of two tasks."""

    def __init__(self, library):
        self.pl = importlib.import_module(LIBRARIES[library])
        self.logger = importlib.import_module(f"loss_balance.backends.torch.{library}")
        scale = torch.tensor([3.0, 1.0])
        torch.manual_seed(0)
        data = torch.utils.data.TensorDataset(torch.randn(160, 8), torch.randn(160, 2) * scale)
        self.batches = torch.utils.data.DataLoader(data, batch_size=16)

    def callback(self, **options):
        return self.logger.LossWeightLogger(**options)

    def module(self, balance=None):
        class Module(self.pl.LightningModule):
            def __init__(self, gamma=0.05):
                super().__init__()
                self.save_hyperparameters()
                torch.manual_seed(1)
                self.net = torch.nn.Linear(8, 2)
                self.balance = balance or Balancer(AdaLoss(2, gamma=gamma), names=["a", "b"])

            def training_step(self, batch, batch_idx):
                x, y = batch
                full = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
                losses = ((self.net(x) - y) ** 2).mean(0)
                return self.balance(losses, update=full or self.trainer.is_last_batch)

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

        return Module()

    def trainer(self, *callbacks, **options):
        quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        where = {"accelerator": "cpu", "devices": 1, "default_root_dir": "root"}
        logger = importlib.import_module(f"{self.pl.__name__}.loggers").CSVLogger("logs")
        usual = {"logger": logger, "max_epochs": 2, "accumulate_grad_batches": 4, **quiet, **where}
        return self.pl.Trainer(callbacks=list(callbacks), **{**usual, **options})


def rows(trainer):
    """What the CSVLogger wrote, as numbers by key; each row by its step."""
    trainer.logger.save()
    with Path(trainer.logger.log_dir, "metrics.csv").open() as file:
        return {
            int(row["step"]): {k: float(v) for k, v in row.items() if v and "loss_" in k}
            for row in csv.DictReader(file)
        }


def counted(balance):
    """Grows by the balancer's step with every `metrics()`."""
    asked, original = [], balance.metrics

    def metrics():
        asked.append(int(balance.step))
        return original()

    balance.metrics = metrics
    return asked


def test_the_callback_logs_at_the_trainers_steps_and_asks_in_no_other(either):
    module = either.module()
    asked = counted(module.balance)
    trainer = either.trainer(either.callback(), log_every_n_steps=2)  # 10 batches: 3 steps an epoch
    trainer.fit(module, either.batches)
    assert asked == [2, 4, 6]
    found = rows(trainer)
    assert list(found) == [1, 3, 5]
    assert found[5] == pytest.approx(module.balance.metrics())
    assert found[1]["loss_weight/a"] < found[1]["loss_weight/b"] == 1.0


def test_the_callback_has_a_rhythm_of_its_own_if_told(kit):
    module = kit.module()
    trainer = kit.trainer(kit.callback(every=3))
    trainer.fit(module, kit.batches)
    assert list(rows(trainer)) == [2, 5]


def test_all_loggers_get_the_weights(kit):
    loggers = importlib.import_module(f"{kit.pl.__name__}.loggers")
    pytest.importorskip("tensorboard")
    several = [loggers.CSVLogger("logs"), loggers.TensorBoardLogger("board")]
    trainer = kit.trainer(kit.callback(), log_every_n_steps=2, logger=several)
    trainer.fit(kit.module(), kit.batches)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(several[1].log_dir)
    events.Reload()
    shown_there = [e.value for e in events.Scalars("loss_weight/a")]
    assert shown_there == pytest.approx([r["loss_weight/a"] for r in rows(trainer).values()])
    assert len(shown_there) == 3


def test_a_trainer_without_loggers_trains_and_nobody_asks(kit):
    module = kit.module()
    asked = counted(module.balance)
    kit.trainer(kit.callback(), logger=False, log_every_n_steps=1).fit(module, kit.batches)
    assert module.balance.step == 6
    assert not asked


def test_a_run_resumed_from_a_checkpoint_ends_as_the_one_that_went_through(either):
    callbacks = importlib.import_module(f"{either.pl.__name__}.callbacks")
    every = {"save_top_k": -1, "filename": "{epoch}", "enable_version_counter": False}
    keep = callbacks.ModelCheckpoint("kept", **every)
    through = either.module()
    trainer = either.trainer(keep, either.callback(), log_every_n_steps=1)
    trainer.fit(through, either.batches)
    resumed = either.module()
    again = either.trainer(
        callbacks.ModelCheckpoint("kept", **every), either.callback(), log_every_n_steps=1
    )
    again.fit(resumed, either.batches, ckpt_path="kept/epoch=0.ckpt")
    assert rows(again) == {step: row for step, row in rows(trainer).items() if step >= 3}
    for name, value in through.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_several_balancers_are_told_apart_by_name_and_chosen_by_prefix(kit):
    class Gan(kit.pl.LightningModule):
        automatic_optimization = False

        def __init__(self):
            super().__init__()
            self.net_d, self.net_g = torch.nn.Linear(8, 2), torch.nn.Linear(8, 2)
            self.balance_d = Balancer(2, names=["real", "fake"])
            self.balance_g = Balancer(2, names=["fool", "pixels"])

        def training_step(self, batch, batch_idx):
            x, y = batch
            parts = ((self.net_d, self.balance_d), (self.net_g, self.balance_g))
            for optimizer, (net, balance) in zip(self.optimizers(), parts, strict=True):
                loss = balance(((net(x) - y) ** 2).mean(0))
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()

        def configure_optimizers(self):
            nets = (self.net_d, self.net_g)
            return [torch.optim.SGD(net.parameters(), lr=0.01) for net in nets]

    module = Gan()
    both = kit.trainer(kit.callback(), log_every_n_steps=5, accumulate_grad_batches=1)
    both.fit(module, kit.batches)
    assert module.balance_d.step == module.balance_g.step == 20
    found = rows(both)
    assert list(found) == [4, 9, 14, 19]  # the axis of self.log: batches, though 2 steps in each
    assert {k for k in found[4] if "weight" in k} == {
        *("loss_weight/balance_d/real", "loss_weight/balance_d/fake"),
        *("loss_weight/balance_g/fool", "loss_weight/balance_g/pixels"),
    }
    one = kit.trainer(
        kit.callback(prefix="balance_g"), log_every_n_steps=5, accumulate_grad_batches=1
    )
    one.fit(Gan(), kit.batches)
    assert {k for k in rows(one)[4] if "weight" in k} == {"loss_weight/fool", "loss_weight/pixels"}


def test_a_compiled_module_is_logged_under_the_same_keys(kit):
    module = kit.module()
    module.balance = torch.compile(module.balance, backend="eager")
    trainer = kit.trainer(kit.callback(), log_every_n_steps=2)
    trainer.fit(torch.compile(module, backend="eager"), kit.batches)
    found = rows(trainer)
    assert list(found) == [1, 3, 5]
    assert {"loss_weight/a", "loss_weight/b"} < set(found[1])


def test_an_average_of_the_module_leaves_the_live_balancer_as_it_is(kit):
    callbacks = importlib.import_module(f"{kit.pl.__name__}.callbacks")
    if not hasattr(callbacks, "EMAWeightAveraging"):
        pytest.skip("of Lightning 2.6")
    plain, averaged = kit.module(), kit.module()
    kit.trainer().fit(plain, kit.batches)
    ema = callbacks.EMAWeightAveraging(decay=0.9, use_buffers=False)
    kit.trainer(ema).fit(averaged, kit.batches)
    assert not torch.equal(averaged.net.weight, plain.net.weight)
    for name, value in plain.balance.state_dict().items():
        assert torch.equal(averaged.balance.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "got LightningModule without"),
        ({"prefix": "x"}, "whose name begins with 'x', got LightningModule without"),
    ],
)
def test_a_module_without_a_balancer_is_refused_before_training(either, options, message):
    module = either.pl.LightningModule()
    if options:
        module.balance = Balancer(2)
    rule = "LossWeightLogger must have a module with a Balancer in it"
    with pytest.raises(ValueError, match=rf"^{rule},? {message}$"):
        either.callback(**options).on_fit_start(None, module)


def test_a_rhythm_that_cannot_be_is_refused(kit):
    with pytest.raises(ValueError, match=r"^every must be a whole number of at least 1, got 0$"):
        kit.callback(every=0)


def test_the_block_of_the_page_logs_and_resumes():
    need("lightning")
    page = shown("lightning")
    found = rows(page.trainer)
    assert list(found) == [1, 3, 5]
    assert found[5] == pytest.approx(page.trainer.lightning_module.balance.metrics())
    path = page.trainer.checkpoint_callback.best_model_path
    loaded = page.Module.load_from_checkpoint(path, weights_only=True)
    assert loaded.hparams.gamma == 0.05
    assert loaded.balance.step == 6
