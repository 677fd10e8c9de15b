"""Runs: repeatable, resumable after any death, and honest about what went wrong."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("sklearn")
torch = pytest.importorskip("torch")
from loss_balance import AdaLoss  # noqa: E402
from loss_balance.experiments.data import Source, load  # noqa: E402
from loss_balance.experiments.errors import UserError  # noqa: E402
from loss_balance.experiments.recipes import Recipe, epoch_order  # noqa: E402
from loss_balance.experiments.run_folder import read_metrics  # noqa: E402
from loss_balance.experiments.torch_learner import TorchLearner, exit_losses  # noqa: E402
from loss_balance.experiments.training import Interruption, Run, train  # noqa: E402
from loss_balance.reference_models import families, weights  # noqa: E402
from loss_balance.reference_models.torch import AnytimeNet  # noqa: E402

DATA = load("digits")
SPEC = families.resann(1, 4, 10, input_shape=DATA.input_shape)


def make(epochs=3, seed=0, **recipe):
    recipe = Recipe(epochs=epochs, batch_size=256, **recipe)
    source = Source("digits")
    return Run("adaloss", SPEC, AdaLoss(3, decay=0.9), recipe, seed, source, DATA.fingerprint())


def go_on(epoch, step, loss):
    return True


def run(folder, progress=go_on, **options):
    chosen = make(**options)
    return train(chosen, TorchLearner(chosen, DATA), DATA, folder, progress)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(folder)


def assert_same_files(left, right):
    for name in ("metrics.jsonl", "result.json", "config.json"):
        assert (left / name).read_text() == (right / name).read_text()
    for name in ("weights.npz", "checkpoint.npz"):
        with np.load(left / name) as a, np.load(right / name) as b:
            assert set(a) == set(b)
            for key in a:
                np.testing.assert_array_equal(a[key], b[key])


def test_the_loss_falls_and_every_epoch_is_recorded(finished):
    folder, result = finished
    epochs = read_metrics(folder)
    assert [e["epoch"] for e in epochs] == [1, 2, 3]
    assert epochs[-1]["train_loss"][-1] < epochs[0]["train_loss"][-1]
    assert all(max(e["loss_weight"]) == 1.0 for e in epochs)
    assert len(result["test_error"]) == len(SPEC.exits)
    assert all(0 < error < 1 for error in result["test_error"])


def test_the_same_run_gives_the_same_numbers(finished, tmp_path):
    run(tmp_path)
    assert_same_files(finished[0], tmp_path)


def test_another_seed_gives_other_numbers(finished, tmp_path):
    assert run(tmp_path, seed=1) != finished[1]


@pytest.mark.parametrize("stop_at", [(0, 0), (1, 0), (2, 0)])
def test_a_stopped_run_resumes_to_the_same_numbers(finished, tmp_path, stop_at):
    with pytest.raises(Interruption):
        run(tmp_path, lambda epoch, step, loss: (epoch, step) < stop_at)
    run(tmp_path)
    assert_same_files(finished[0], tmp_path)


def test_a_run_killed_between_metrics_and_checkpoint_resumes(finished, tmp_path):
    with pytest.raises(Interruption):
        run(tmp_path, lambda epoch, step, loss: epoch < 1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "train_lo')  # the line was being written
    (tmp_path / "checkpoint.npz.part").write_bytes(b"half a checkpoint")
    run(tmp_path)
    (tmp_path / "checkpoint.npz.part").unlink(missing_ok=True)
    assert_same_files(finished[0], tmp_path)


def test_a_finished_run_is_not_trained_again(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)

    def refuse(epoch, step, loss):
        raise AssertionError("trained")

    assert run(folder, refuse) == finished[1]


def test_another_runs_folder_is_refused(finished):
    with pytest.raises(UserError, match="holds another run"):
        run(finished[0], epochs=4)


def test_a_damaged_checkpoint_is_named(tmp_path):
    with pytest.raises(Interruption):
        run(tmp_path, lambda epoch, step, loss: epoch < 1)
    (tmp_path / "checkpoint.npz").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(UserError, match=r"checkpoint.npz cannot be read .* --overwrite"):
        run(tmp_path)


def test_a_diverging_run_says_so(tmp_path):
    with pytest.raises(UserError, match=r"not finite in epoch .* try a smaller --learning-rate"):
        run(tmp_path, learning_rate=1e30)


def test_the_weights_file_is_the_finished_network(finished):
    folder, result = finished
    net = AnytimeNet(SPEC)
    net.load_weights(weights.load(folder / "weights.npz"))
    images = torch.from_numpy(DATA.standardise(DATA.x_test)).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = net.eval()(images)
    errors = [(x.argmax(1).numpy() != DATA.y_test).mean() for x in logits]
    assert errors == pytest.approx(result["test_error"])


def test_the_checkpoint_holds_no_pickle(finished):
    with np.load(finished[0] / "checkpoint.npz", allow_pickle=False) as archive:
        kinds = {archive[name].dtype.kind for name in archive}
    assert kinds <= {"f", "i"}


def test_exit_losses_are_the_cross_entropies_one_by_one():
    logits = torch.randn(3, 5, 7)
    labels = torch.randint(7, (5,))
    expected = [torch.nn.functional.cross_entropy(x, labels, reduction="none") for x in logits]
    torch.testing.assert_close(exit_losses(logits, labels), torch.stack(expected))


def test_the_config_can_be_read_by_people(finished):
    config = json.loads((finished[0] / "config.json").read_text())
    assert config["network"] == "resann-1-4"
    assert config["scheme"].startswith("AdaLoss(num_losses=3")
    assert config["recipe"]["epochs"] == 3


def test_the_learning_rate_falls_at_a_half_and_at_three_quarters():
    recipe = Recipe(epochs=8, learning_rate=1.0)
    rates = [recipe.rate(epoch) for epoch in range(8)]
    assert rates == pytest.approx([1.0] * 4 + [0.1] * 2 + [0.01] * 2)


def test_every_epoch_has_its_own_order_and_drops_the_last_incomplete_batch():
    recipe = Recipe(epochs=2, batch_size=4)
    first, second = (epoch_order(0, epoch, 10, recipe) for epoch in range(2))
    assert first.shape == (2, 4)
    assert len(set(first.ravel())) == 8
    assert first.tolist() != second.tolist()
    assert epoch_order(0, 0, 10, recipe).tolist() == first.tolist()


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert epoch_order(0, 0, 3, Recipe(epochs=1, batch_size=4)).shape == (1, 3)
