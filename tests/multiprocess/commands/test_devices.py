"""One run over several processes: the numbers of one device, and no death that loses anything."""

from __future__ import annotations

import os
import signal
import sys

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("typer")
pytest.importorskip("torch")
psutil = pytest.importorskip("psutil")
from support.experiments.command_process import SMALL, begin, command, one_line, wait_for
from support.experiments.folders import apart, result_of

TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    *("-m", "loss_balance"),
]
STEPS = ("train", *SMALL, "--epochs", "1", "--learning-rate", "0.01", "--quiet")  # five
ROUNDING = 1e-4
LONG = ("train", *SMALL, "--epochs", "6", "--quiet")


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    done = command(*STEPS, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The long run by two ranks, uninterrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = command(*LONG, "--devices", "2", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("launcher", "more"),
    [
        ([sys.executable, "-m", "loss_balance"], ("--devices", "2")),
        ([sys.executable, "-m", "loss_balance"], ("--devices", "4")),
        ([sys.executable, "-m", "loss_balance"], ("--devices", "2", "--strategy", "fsdp")),
        (TORCHRUN, ()),
        (TORCHRUN, ("--strategy", "fsdp")),
    ],
)
def test_several_devices_end_in_the_numbers_of_one(one, launcher, more, tmp_path):
    done = command(*STEPS, *more, "--out", tmp_path / "run", launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Run: ") == 1  # one of them speaks for all
    assert 0 < apart(one, tmp_path / "run") < ROUNDING
    for name, values in result_of(one).items():
        assert result_of(tmp_path / "run")[name] == pytest.approx(values, rel=1e-3)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_network_of_ones_own_ends_in_the_numbers_of_one_device(strategy, tmp_path):
    own = (*STEPS, "--network", "support.networks.own_torch:small", "--scheme", "guided")
    for name, more in (("one", ()), ("two", ("--devices", "2", "--strategy", strategy))):
        done = command(*own, *more, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert 0 < apart(tmp_path / "one", tmp_path / "two") < ROUNDING


def test_local_batch_norm_is_another_run(one, tmp_path):
    local = (*STEPS, "--devices", "2", "--batch-norm", "local", "--out", tmp_path / "run")
    assert command(*local).returncode == 0
    assert apart(one, tmp_path / "run") > 10 * ROUNDING
    done = command(*STEPS, "--devices", "2", "--out", tmp_path / "run", "--resume")
    assert done.returncode == 2
    assert "engine batch_norm 'local' is now 'global'" in one_line(done)


@pytest.mark.parametrize("scheme", ["guided", "gradient-norm"])
def test_what_schemes_follow_is_of_the_whole_batch(scheme, tmp_path):
    for devices in (1, 2):
        more = ("--scheme", scheme, "--devices", devices, "--out", tmp_path / f"{devices}")
        steps = (*STEPS, *more)
        done = command(*steps)
        assert done.returncode == 0, done.stderr
    assert 0 < apart(tmp_path / "1", tmp_path / "2") < 10 * ROUNDING


def ranks_of(process):
    """The processes that train, by their start."""
    below = psutil.Process(process.pid).children(recursive=True)
    found = [child for child in below if "spawn_main" in " ".join(child.cmdline())]
    workers = {child.pid for child in found}
    return [child for child in found if child.ppid() in workers]


def after_an_epoch(out, *more, launcher=None, **variables):
    """The long run once it has a checkpoint."""
    given = {} if launcher is None else {"launcher": launcher}
    process = begin(*LONG, *more, "--out", out, **given, **variables)
    wait_for((out / "checkpoint.npz").exists, process)
    return process


def goes_on_to(whole, out, *more):
    done = command(*LONG, *more, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    return apart(whole, out)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_all_with_one_line_and_nothing_is_lost(whole, victim, tmp_path):
    process = after_an_epoch(tmp_path / "run", "--devices", "2")
    ranks = ranks_of(process)
    ranks[victim].kill()
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    (line,) = printed.strip().splitlines()
    assert f"rank {victim} was killed by SIGKILL" in line
    assert not any(rank.is_running() for rank in ranks)
    assert goes_on_to(whole, tmp_path / "run", "--devices", "2") == 0


def test_a_rank_that_stops_answering_ends_all(whole, tmp_path):
    process = after_an_epoch(tmp_path / "run", "--devices", "2", LOSS_BALANCE_PATIENCE="5")
    ranks = ranks_of(process)
    ranks[1].suspend()
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    (line,) = printed.strip().splitlines()
    assert "a rank did not answer for 5 s" in line
    assert not any(rank.is_running() for rank in ranks)
    assert goes_on_to(whole, tmp_path / "run", "--devices", "2") == 0


def test_ctrl_c_stops_all_ranks_at_one_step_and_any_number_goes_on(whole, tmp_path):
    process = after_an_epoch(tmp_path / "run", "--devices", "2")
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in printed
    assert goes_on_to(whole, tmp_path / "run", "--devices", "1") < 0.1  # rounding, for five epochs


def test_torchrun_stopped_goes_on_by_torchrun(whole, tmp_path):
    process = after_an_epoch(tmp_path / "run", launcher=TORCHRUN)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=90)
    assert not (tmp_path / "run" / "result.json").exists()
    done = command(*LONG, "--out", tmp_path / "run", "--resume", launcher=TORCHRUN)
    assert done.returncode == 0, done.stderr
    assert apart(whole, tmp_path / "run") == 0


def test_a_loss_that_is_no_number_ends_all_with_one_line(tmp_path):
    done = command(*STEPS, "--learning-rate", "1e30", "--devices", "2", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "the loss is not finite in epoch 1; try a smaller --learning-rate" in one_line(done)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--devices", "3"), "--devices must divide the batch of 256 images, got 3"),
        (("--devices", "0"), "--devices must be at least 1, got 0"),
        (("--strategy", "zero"), "unknown strategy 'zero': choose from ddp, fsdp"),
        (("--batch-norm", "none"), "unknown batch norm 'none': choose from global, local"),
        (("--devices", "2", "--compile"), "--compile is for one device in torch"),
        (("--framework", "jax", "--strategy", "fsdp"), "--strategy fsdp is of torch, not of jax"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(more, message, tmp_path):
    done = command(*STEPS, *more, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert message in one_line(done)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
@pytest.mark.parametrize("what", [("train",), ("compare",), ("eann",), ("paper", "fig2a")])
def test_several_processes_that_would_train_the_same_are_refused(name, what, tmp_path):
    done = command(*what, "--out", tmp_path / "out", **{name: "2", "RANK": None})
    assert done.returncode == 2
    assert f"this command must be started once, 2 processes of it were ({name}=2)" in one_line(done)
    assert not (tmp_path / "out").exists()


def test_devices_under_torchrun_are_its_processes(tmp_path):
    done = command(*STEPS, "--devices", "4", "--out", tmp_path / "run", launcher=TORCHRUN)
    assert done.returncode != 0
    assert "--devices must be 2 under torchrun, got 4" in done.stderr
    assert not (tmp_path / "run").exists()
