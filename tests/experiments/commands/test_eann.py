"""`loss-balance eann`: what it trains, chooses by, measures and writes, and what it refuses."""

from __future__ import annotations

import json
import re
import sys
from html import unescape

import numpy as np
import pytest
from support.experiments.standardising import standardise

pytest.importorskip("sklearn")
pytest.importorskip("typer")
torch = pytest.importorskip("torch")

from loss_balance.experiments import cli
from loss_balance.experiments.data.sources import load
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.studies.ensemble import Measured, combine
from loss_balance.reference_models import families
from loss_balance.reference_models.description import weights
from loss_balance.reference_models.torch import AnytimeNet

NETWORKS = ("resann-1-4", "resann-2-4")
QUICK = ["--data", "digits", "--networks", ",".join(NETWORKS), "--epochs", "3"]
QUICK += ["--batch-size", "128", "--repeats", "3"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)  # the command sets it


@pytest.fixture
def command(monkeypatch, capsys):
    """The command in this process: (exit status, what it printed, what it complained of)."""

    def call(*arguments):
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setattr(sys, "argv", ["loss-balance", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the command has trained and combined."""
    folder = tmp_path_factory.mktemp("eann") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["loss-balance", "eann", *QUICK, "--out", str(folder)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert ended.value.code == 0
    return folder


@pytest.fixture
def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def run_of(folder, network, scheme):
    return folder / "runs" / f"{network}-{scheme}-seed0"


def test_it_trains_each_network_with_each_scheme_and_opt_for_the_largest(folder):
    names = {path.name for path in (folder / "runs").iterdir()}
    shared = {f"{n}-{s}-seed0" for n in NETWORKS for s in ("adaloss", "const")}
    assert shared < names
    assert all(re.fullmatch(r"resann-2-4-opt-exit\d-seed0", name) for name in names - shared)
    assert {path.name for path in folder.iterdir()} == {
        ".command",
        "config.json",
        "eann.html",
        "eann.png",
        "runs",
        "summary.json",
    }


def test_a_tenth_of_the_training_images_is_held_out_and_no_test_image_is(folder):
    whole, held_out = load("digits"), load("digits", validation=True)
    assert len(held_out.y_test) == len(whole.y_train) // 10
    np.testing.assert_array_equal(
        np.concatenate([held_out.x_train, held_out.x_test]), whole.x_train
    )
    for run in (folder / "runs").iterdir():
        config = json.loads((run / "config.json").read_text())
        assert config["fingerprint"] == held_out.fingerprint()


def test_the_used_answers_follow_from_the_held_out_errors_alone(folder, summary):
    for scheme in ("adaloss", "const"):
        best, begun, expected = 1.0, 0, []
        for m, network in enumerate(NETWORKS):
            spec = families.get(network, 10, input_shape=(8, 8, 1))
            result = json.loads((run_of(folder, network, scheme) / "result.json").read_text())
            for k, error in enumerate(result["test_error"]):
                if error < best:
                    best = error
                    expected.append((begun + spec.costs()[k].multiply_adds, m, k, error))
            begun += spec.costs()[-1].multiply_adds
        found = summary["curves"][f"EANN, {scheme}"]["multiply_adds"]
        assert found["total"] == begun
        assert [
            (a["cost"], a["member"], a["exit"], a["validation_error"]) for a in found["answers"]
        ] == expected


def test_what_is_reported_is_the_error_on_the_test_images(folder, summary):
    data = load("digits", validation=True)  # whose statistics the networks know
    test = load("digits")
    images = torch.from_numpy(standardise(data, test.x_test)).permute(0, 3, 1, 2)
    for network in summary["networks"]:
        config = json.loads((folder.parent / network["run"] / "config.json").read_text())
        spec = families.get(network["network"].partition(".")[0], 10, input_shape=(8, 8, 1))
        if network["scheme"] == "opt":
            spec = spec.single_exit(spec.exits.index(config["spec"]["exits"][0]))
        net = AnytimeNet(spec)
        net.load_weights(weights.load(folder.parent / network["run"] / "weights.npz"))
        with torch.no_grad():
            logits = net.eval()(images)
        errors = [(x.argmax(1).numpy() != test.y_test).mean() for x in logits]
        assert network["test_error"] == pytest.approx(errors, abs=1.5 / len(test.y_test))


def test_milliseconds_grow_from_exit_to_exit(summary):
    for network in summary["networks"]:
        assert network["milliseconds"] == sorted(network["milliseconds"])
        assert len(network["milliseconds"]) == len(network["multiply_adds"])


def test_the_report_stands_alone(folder, summary):
    page = unescape((folder / "eann.html").read_text())
    assert page.count("<svg ") == 2
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert all(line in page for line in summary["findings"])
    assert (folder / "eann.png").read_bytes().startswith(b"\x89PNG")


def test_finished_runs_are_combined_without_training(folder, summary, command, tmp_path):
    runs = [run_of(folder, network, "adaloss") for network in NETWORKS[::-1]]
    before = {path: path.stat().st_mtime_ns for run in runs for path in run.iterdir()}
    status, printed, _ = command("eann", *runs, "--repeats", 3, "--out", tmp_path / "again")
    assert status == 0
    assert before == {path: path.stat().st_mtime_ns for run in runs for path in run.iterdir()}
    again = json.loads((tmp_path / "again" / "summary.json").read_text())
    curve = again["curves"]["EANN, adaloss"]
    expected = summary["curves"]["EANN, adaloss"]
    assert curve["multiply_adds"]["answers"] == expected["multiply_adds"]["answers"]
    assert set(again["curves"]) == {
        "EANN, adaloss",
        "resann-1-4, adaloss",
        "resann-2-4, adaloss",
        "linear ensemble",
    }
    assert "No ordinary networks are among the runs" in printed
    for words in ("exits used", "of 3", "of 6", "of largest", "theory", "Test error on digits"):
        assert words in printed
    status, _, _ = command("eann", *runs, "--repeats", 3, "--out", tmp_path / "again")
    assert status == 0  # its own report may be replaced


def test_the_same_command_needs_resume_and_then_trains_nothing(folder, command):
    status, _, complaint = command("eann", *QUICK, "--out", folder)
    assert status == 2
    assert "continue it with --resume" in complaint
    before = (run_of(folder, NETWORKS[0], "const") / "weights.npz").stat().st_mtime_ns
    status, _, _ = command("eann", *QUICK, "--out", folder, "--resume")
    assert status == 0
    assert (run_of(folder, NETWORKS[0], "const") / "weights.npz").stat().st_mtime_ns == before
    status, _, complaint = command("eann", *QUICK, "--gamma", "0.5", "--out", folder, "--resume")
    assert status == 2
    assert "gamma 0.05 is now 0.5" in complaint


def test_a_run_that_held_nothing_out_is_refused(folder, command, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for path in run_of(folder, NETWORKS[0], "adaloss").iterdir():
        content = path.read_bytes()
        if path.name == "config.json":
            content = content.replace(b'"validation": true', b'"validation": false')
        (run / path.name).write_bytes(content)
    status, _, complaint = command("eann", run, run_of(folder, NETWORKS[1], "adaloss"))
    assert status == 2
    assert "trained on all training images, so none are left to choose its answers by" in complaint


def test_what_does_not_make_an_ensemble_is_named(folder, command, tmp_path):
    small, large = (run_of(folder, network, "adaloss") for network in NETWORKS)
    other = run_of(folder, NETWORKS[1], "const")
    cases = [
        ((small,), "two or more anytime networks trained with the same scheme, got resann-1-4"),
        ((small, other), "got resann-1-4 (adaloss), resann-2-4 (const)"),
        ((small, small), "must differ in cost"),
        ((small, tmp_path), "lacks config.json, result.json, metrics.jsonl, weights.npz"),
        ((small, large, "--epochs", 3), "--epochs is for training: leave it out, or leave out RUN"),
        ((small, large, "--repeats", 0), "--repeats must be a whole number of at least 1, got 0"),
        (("--networks", "resann-1-4"), "--networks must be two or more different ones"),
        (("--networks", "resann-1-4,resann-1-4"), "--networks must be two or more different ones"),
        (("--data", "mnist"), "unknown data set 'mnist'"),
        (("--schemes", "opt"), "a scheme beside opt"),
    ]
    for arguments, message in cases:
        status, _, complaint = command("eann", *arguments, "--out", tmp_path / "out")
        assert (status, message in complaint) == (2, True), (arguments, complaint)
        assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(folder, command, tmp_path):
    runs = [run_of(folder, network, "adaloss") for network in NETWORKS]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    for taken in (folder, runs[0], tmp_path / "mine", tmp_path / "mine" / "thesis.tex"):
        status, _, complaint = command("eann", *runs, "--out", taken)
        assert status == 2
        assert "--out must be a new or empty folder or one with a report of RUNs" in complaint


# --- combining, by hand ---


def measured(name, scheme, costs, validation, test):
    milliseconds = tuple(2.0 * cost for cost in costs)
    return Measured(
        run=name,
        network=name,
        scheme=scheme,
        multiply_adds=tuple(costs),
        milliseconds=milliseconds,
        validation_error=tuple(validation),
        test_error=tuple(test),
    )


SMALL = measured("small", "adaloss", (1, 2), (0.5, 0.4), (0.55, 0.45))
LARGE = measured("large", "adaloss", (2, 4), (0.45, 0.2), (0.5, 0.25))
OPT = (
    measured("opt2", "opt", (2,), (0.38,), (0.4,)),
    measured("opt4", "opt", (4,), (0.18,), (0.2,)),
)


def test_an_ensemble_costs_what_its_schedule_says():
    combined = combine([LARGE, SMALL])
    (ensemble,) = combined.ensembles
    assert [(a.cost, a.test_error) for a in ensemble.answers("multiply_adds")] == [
        (1, 0.55),
        (2, 0.45),
        (6, 0.25),
    ]
    assert [a.cost for a in ensemble.answers("milliseconds")] == [2, 4, 12]
    assert ensemble.total("multiply_adds") == 6
    assert (ensemble.ratios, ensemble.base) == ([2.0], 2.0)
    assert combined.error_at(ensemble, 0.9, "multiply_adds") is None
    assert combined.error_at(ensemble, 5.9, "multiply_adds") == 0.45


def test_measured_inflation_is_the_cost_over_that_of_the_cheapest_single_network():
    combined = combine([SMALL, LARGE])
    assert combined.inflation(combined.ensembles[0], "multiply_adds") == (6 / 4, (1 + 1 + 1.5) / 3)
    combined = combine([SMALL, LARGE, measured("opt3", "opt", (3,), (0.2,), (0.25,))])
    assert combined.inflation(combined.ensembles[0], "multiply_adds").worst == 6 / 3


def test_the_linear_ensemble_is_made_of_ordinary_networks_if_there_are_two():
    combined = combine([SMALL, *OPT, LARGE])
    assert [m.run for m in combined.linear.members] == ["opt2", "opt4"]
    assert combined.linear_is_new
    assert [a.cost for a in combined.linear.answers("multiply_adds")] == [2, 6]
    assert [a.cost for a in combined.opt.answers("multiply_adds")] == [2, 4]
    combined = combine([SMALL, OPT[0], LARGE])
    assert [m.run for m in combined.linear.members] == ["small", "large"]
    assert not combined.linear_is_new
    assert [a.cost for a in combined.linear.answers("multiply_adds")] == [2, 6]


def test_the_mean_error_is_over_budgets_from_where_all_have_an_answer():
    combined = combine([SMALL, LARGE, *OPT])
    assert combined.span("multiply_adds") == (2, 6)
    mean = {curve.name: combined.mean_error(curve, "multiply_adds") for curve in combined.curves}
    assert mean == pytest.approx(
        {
            "EANN, adaloss": 0.45,
            "small, adaloss": 0.45,
            "large, adaloss": (2 * 0.5 + 2 * 0.25) / 4,
            "linear ensemble": 0.4,
            "OPT": (2 * 0.4 + 2 * 0.2) / 4,
        }
    )


def test_a_network_that_begins_too_late_has_no_mean():
    late = measured("late", "const", (5, 9), (0.2, 0.1), (0.2, 0.1))
    combined = combine([SMALL, LARGE, late])
    single = next(curve for curve in combined.singles if curve.name == "late, const")
    assert combined.mean_error(single, "multiply_adds") is None


def test_one_scheme_must_have_two_networks():
    with pytest.raises(UserError, match="two or more anytime networks"):
        combine([SMALL, measured("large", "const", (2, 4), (0.4, 0.2), (0.5, 0.2)), *OPT])
    with pytest.raises(UserError, match="must differ in cost, got opt2 and opt2"):
        combine([SMALL, LARGE, OPT[0], OPT[0]])
