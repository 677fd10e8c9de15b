"""`loss-balance paper`: what each figure and table prints, against the runs' own files."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("typer")
torch = pytest.importorskip("torch")

from support.experiments.command_line import call, runs_in

from loss_balance.experiments.data.sources import load
from loss_balance.experiments.paper import numbers
from loss_balance.experiments.paper import redo as paper
from loss_balance.experiments.paper.common import change
from loss_balance.experiments.paper.settings import SETTINGS
from loss_balance.experiments.training.recipes import RECIPES
from loss_balance.reference_models import families
from loss_balance.reference_models.description import weights
from loss_balance.reference_models.torch import AnytimeNet

QUICK = ["--scale", "digits", "--epochs", "2", "--batch-size", "256", "--jobs", "1"]
ALL = ("table3a", "fig2a", "fig4", "fig4a", "fig5c", "table3b", "fig5a", "fig5b")
SMALL = "resann-1-4"
MORE = {  # fewer networks than its own: of fig5a's all but one
    "fig5b": ["--networks", f"{SMALL}:resann-2-4,{SMALL}:resann-2-4", "--final-weight", "1"]
}

# Typed from the paper a second time.
PUBLISHED = """
opt 0.00 0.00 0.00 0.00
const 15.07 16.40 18.76 18.90
linear 25.67 13.02 12.97 12.65
adaloss 32.99 9.97 3.96 2.73
resann const 54.34 35.61 27.23 25.14
resann adaloss 54.98 34.92 26.59 24.42
denseann const 48.15 45.00 29.09 25.60
denseann adaloss 47.17 44.64 28.22 24.07
msdnet const 33.90 28.00 25.70 24.30
msdnet adaloss 35.75 28.04 25.82 23.99
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)  # the command sets it


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("paper") / "out"


@pytest.fixture(scope="module")
def printed(out):
    """What each command printed, in the order of ALL, with the runs of those before it."""
    texts = {}
    for name in ALL:
        status, texts[name], complaint = call(
            "paper", name, *QUICK, *MORE.get(name, []), "--out", out
        )
        assert status == 0, complaint
    return texts


def table(out, name):
    with (out / f"{name}.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    return header, {row[0]: row[1:] for row in rows}


def costs(network, size=8, classes=10):
    spec = families.get(network, classes, input_shape=(size, size, 1))
    return np.array([cost.multiply_adds for cost in spec.costs()])


def results(out, network, scheme, **wanted):
    """The results of runs with that class of scheme, by the number of classes' own names."""
    wanted = {"validation": False, "name": "digits", "final": 1.0} | wanted
    return [
        (config, result, metrics)
        for config, result, metrics in runs_in(out / "runs")
        if config["network"] == network
        and config["scheme"]["class"] == scheme
        and config["data"]["validation"] == wanted["validation"]
        and config["data"]["name"] == wanted["name"]
        and config["scheme"].get("final_weight", wanted["final"]) == wanted["final"]
    ]


def result(out, network, scheme, **wanted):
    ((_, found, _),) = results(out, network, scheme, **wanted)
    return found


@pytest.mark.parametrize("name", ALL)
def test_the_csv_holds_what_is_printed(out, printed, name):
    _, rows = table(out, name)
    lines = printed[name].splitlines()
    for first, cells in rows.items():
        shown = [[c.strip() for c in line.split("│")[1:-1]] for line in lines if "│" in line]
        assert [first, *cells] in shown


@pytest.mark.parametrize("name", ALL)
def test_a_plot_and_every_exit_of_every_run_are_written(out, printed, name):
    picture = (out / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert 5_000 < len(picture) < 150_000
    with (out / f"{name}-runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        found = json.loads((out / "runs" / row["run"] / "result.json").read_text())
        for metric in ("train_loss", "test_loss", "test_error"):
            assert float(row[metric]) == found[metric][int(row["exit"]) - 1]


@pytest.mark.parametrize("name", ALL)
def test_it_says_what_the_paper_says(printed, name):
    assert "Paper: " in printed[name]


def test_table_3a_is_the_increase_over_opt(out, printed):
    header, rows = table(out, "table3a")
    assert header == [
        "scheme",
        *(text for at in ("1/4", "1/2", "3/4", "1") for text in (at, "paper")),
    ]
    total = costs(SMALL)
    exits = [max(np.flatnonzero(total <= share * total[-1]), default=0) for share in
             (0.25, 0.5, 0.75, 1.0)]  # fmt: skip
    opt = [result(out, f"{SMALL}.exit{k}", "Single")["test_error"][0] for k in exits]
    for name, kind in {"const": "Constant", "linear": "Linear", "adaloss": "AdaLoss"}.items():
        error = result(out, SMALL, kind)["test_error"]
        expected = [100 * (error[k] / best - 1) for k, best in zip(exits, opt, strict=True)]
        assert [float(cell) for cell in rows[name][::2]] == pytest.approx(expected, abs=0.006)
    text = " ".join(printed["table3a"].split())
    changes = text.split("AdaLoss against const: ")[1].split(" points")[0].split(", ")
    adaloss, const = (result(out, SMALL, kind)["test_error"] for kind in ("AdaLoss", "Constant"))
    expected = [100 * (adaloss[k] - const[k]) for k in exits]
    assert [float(each.split(" at ")[0]) for each in changes] == pytest.approx(expected, abs=0.006)


def test_tables_3a_and_3b_show_the_published_numbers(out, printed):
    published = [line.split() for line in PUBLISHED.split("\n") if line]
    assert len(published) == len(numbers.TABLE_3A) + len(numbers.TABLE_3B)
    _, rows = table(out, "table3a")
    for name, *values in published[:4]:
        assert rows[name][1::2] == values
    _, rows = table(out, "table3b")
    for family, scheme, *values in published[4:]:
        (cells,) = (c for name, c in rows.items() if name.startswith(family) and scheme in name)
        assert cells[1::2] == values


def test_table_3b_is_the_error_with_the_final_weight_doubled(out, printed):
    _, rows = table(out, "table3b")
    for network in ("resann-1-4", "denseann-1-4", "msdnet-6"):
        total = costs(network)
        for name, kind in (("const", "Constant"), ("adaloss", "AdaLoss")):
            error = result(out, network, kind, final=2.0)["test_error"]
            for cell, share in zip(
                rows[f"{network} {name}"][::2], (0.25, 0.5, 0.75, 1), strict=True
            ):
                k = max(np.flatnonzero(total <= share * total[-1]), default=0)
                assert float(cell) == pytest.approx(100 * error[k], abs=0.006)


def test_fig_2a_is_the_training_loss_over_opt_at_every_exit(out, printed):
    header, rows = table(out, "fig2a")
    schemes = {"const": "Constant", "half-end": "HalfEnd", "adaloss": "AdaLoss"}
    assert header == ["exit", "of cost", *schemes, "OPT's loss"]
    for k in range(3):
        opt = result(out, f"{SMALL}.exit{k}", "Single")["train_loss"][0]
        losses = [result(out, SMALL, kind)["train_loss"][k] for kind in schemes.values()]
        cells = [float(cell) for cell in rows[str(k + 1)]]
        assert cells[1:-1] == pytest.approx([100 * (x / opt - 1) for x in losses], abs=0.06)
        assert cells[0] == pytest.approx(costs(SMALL)[k] / costs(SMALL)[-1], abs=0.006)
        assert cells[-1] == pytest.approx(opt, abs=6e-5)


def test_fig_4_is_the_error_at_each_budget_over_the_small_networks_final_one(out, printed):
    _, rows = table(out, "fig4")
    small, large = costs("resann-1-4"), costs("resann-2-4")
    adaloss = result(out, "resann-1-4", "AdaLoss")["test_error"]
    const = result(out, "resann-2-4", "Constant")["test_error"]
    for budget, cells in rows.items():
        for cell, cost, error in zip(cells, (small, large), (adaloss, const), strict=True):
            answered = [
                e for c, e in zip(cost, error, strict=True) if c <= float(budget) * small[-1]
            ]
            if answered:
                expected = 100 * (answered[-1] / adaloss[-1] - 1)
                assert float(cell) == pytest.approx(expected, abs=0.06)
            else:
                assert cell == "n/a"


def test_fig_5c_is_the_weights_after_the_last_epoch(out, printed):
    header, rows = table(out, "fig5c")
    assert header == ["exit", "digits", "digit-pairs"]
    for column, name in enumerate(header[1:]):
        ((_, _, metrics),) = results(out, SMALL, "AdaLoss", name=name)
        shown = [float(rows[str(k + 1)][column]) for k in range(3)]
        assert shown == pytest.approx(metrics[-1]["loss_weight"], abs=6e-5)


def test_fig_5a_answers_with_what_held_out_images_chose(out, printed):
    _, rows = table(out, "fig5a")
    data = load("digits")
    x = (data.x_test.astype(np.float32) - data.mean) / data.std
    held_out = load("digits", validation=True)
    x = (data.x_test.astype(np.float32) - held_out.mean) / held_out.std
    for name, kind in (("adaloss", "AdaLoss"), ("const", "Constant")):
        best, answer = 1.0, None
        for network in ("resann-1-4", "resann-2-4"):
            ((config, found, _),) = results(out, network, kind, validation=True)
            for k, error in enumerate(found["test_error"]):
                if error < best:
                    best, answer = error, (config["name"], network, k)
        run, network, k = answer
        spec = families.get(network, 10, input_shape=(8, 8, 1))
        net = AnytimeNet(spec).eval()
        net.load_weights(weights.load(out / "runs" / run / "weights.npz"))
        with torch.no_grad():
            logits = net(torch.from_numpy(x).permute(0, 3, 1, 2))[k].numpy()
        error = 100 * (logits.argmax(axis=1) != data.y_test).mean()
        column = 4  # at the ensemble's whole cost
        assert float(rows[f"EANN, {name}"][column]) == pytest.approx(error, abs=0.3)


def test_runs_are_shared_between_figures_and_trained_once(out, printed):
    trained = {name: printed[name].splitlines()[0] for name in ALL}
    assert trained["table3a"] == "6 runs, 6 of them to train."
    assert trained["fig2a"] == "6 runs, 1 of them to train."  # half-end
    assert trained["fig4"] == "2 runs, 1 of them to train."  # the large network
    assert trained["fig4a"] == "2 runs, 0 of them to train."
    assert trained["fig5b"] == "4 runs, 1 of them to train."  # the small network of one exit
    assert trained["fig5c"] == "2 runs, 1 of them to train."  # the other data set
    before = {file: file.stat().st_mtime_ns for file in (out / "runs").rglob("*")}
    csvs = {file: file.read_bytes() for file in out.glob("*.csv")}
    for name in ALL:
        status, text, _ = call("paper", name, *QUICK, *MORE.get(name, []), "--out", out)
        assert (status, "0 of them to train" in text) == (0, True)
    assert {file: file.stat().st_mtime_ns for file in (out / "runs").rglob("*")} == before
    assert {file: file.read_bytes() for file in out.glob("*.csv")} == csvs


def test_what_is_asked_for_otherwise_is_trained_anew(out, printed):
    status, text, _ = call("paper", "fig2a", *QUICK, "--gamma", "0.5", "--out", out)
    assert (status, text.splitlines()[0]) == (0, "6 runs, 1 of them to train.")
    status, text, _ = call("paper", "fig5c", *QUICK, "--data", "digits", "--seeds", 2, "--out", out)
    assert (status, text.splitlines()[0]) == (0, "2 runs, 1 of them to train.")


def test_a_change_has_its_spread_over_the_seeds():
    assert change(np.array([1.0, 3.0])) == "+2.00 ±1.41"
    assert change(np.array([-0.25]), 1) == "-0.2"


def test_the_papers_own_setting_is_the_papers():
    chosen = {name: scales["paper"] for name, scales in SETTINGS.items()}
    assert chosen["table3a"].data == ("cifar10", "cifar100", "svhn")
    assert len(set(chosen["table3a"].networks)) == 12
    assert len(set(chosen["fig4"].networks)) == 6
    assert chosen["fig5a"].networks == ("resann-7-32", "resann-13-32", "resann-25-32")
    assert chosen["table3b"].data == ("imagefolder",)
    assert chosen["table3b"].final_weight == 2
    assert all(setting.epochs is None for setting in chosen.values())
    assert [RECIPES[name].epochs for name in ("cifar100", "svhn", "imagefolder")] == [300, 60, 90]
    for name, setting in chosen.items():
        for pair in setting.networks * name.startswith("fig4"):
            parts = [families.get(name, num_classes=100) for name in pair.split(":")]
            totals = [spec.costs()[-1].multiply_adds for spec in parts]
            assert 1.6 <= round(totals[1] / totals[0], 1) <= 2.1  # "about twice the cost"


def test_ctrl_c_leaves_all_that_is_needed(monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(paper.Pool, "train", interrupted)
    status, text, _ = call("paper", "fig2a", *QUICK, "--out", tmp_path / "out")
    assert (status, "the same command goes on" in text) == (130, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fig2a", "--scale", "huge"], "unknown scale 'huge': choose from digits, small, paper"),
        (["fig4", "--networks", "resann-1-4"], "must be pairs small:large, got resann-1-4"),
        (["fig4e", "--networks", "msdnet-6"], "must be pairs small:large, got msdnet-6"),
        (["fig5b", "--networks", "resann-1-4"], "must begin with the ensemble's"),
        (["fig2a", "--networks", "resann-1-4:resann-2-4"], "must be names"),
        (["fig2a", "--networks", "resann-1-4,resann-2-4"], "one network and one data set"),
        (["fig5a", "--networks", "resann-1-4"], "two or more networks and one data set"),
        (["fig5a", "--seeds", "2"], "fig5a takes one seed"),
        (["fig5c", "--networks", "resann-1-4,resann-2-4"], "one network, on several data sets"),
        (["table3a", "--networks", ""], "must be names, got none"),
        (["table3a", "--data", ""], "at least one data set"),
        (["table3a", "--jobs", "0"], "jobs must be a whole number of at least 1, got 0"),
        (["table3b", "--scale", "paper"], "needs its files: --data imagefolder --path FOLDER"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, arguments, message):
    name, *options = arguments
    scale = [] if "--scale" in options else ["--scale", "digits"]
    status, _, complaint = call("paper", name, *scale, *options, "--out", tmp_path / "out")
    assert (status, message in complaint) == (2, True), complaint
    assert not (tmp_path / "out").exists()


def test_beyond_adds_schemes_that_the_paper_does_not_have(out, printed):
    status, text, _ = call("paper", "table3a", *QUICK, "--beyond", "--out", out)
    assert (status, text.splitlines()[0]) == (0, "8 runs, 2 of them to train.")
    _, rows = table(out, "table3a")
    assert list(rows) == ["const", "linear", "adaloss", "equilibrium", "guided", "opt"]
    for name in ("equilibrium", "guided"):
        assert rows[name][1::2] == ["n/a"] * 4
        assert np.isfinite([float(cell) for cell in rows[name][::2]]).all()
    status, _, error = call("paper", "fig5c", *QUICK, "--beyond", "--out", out)
    rule = "--beyond is for all figures and tables but fig5c, got fig5c"
    assert (status, error) == (2, f"loss-balance: {rule}\n")
