"""The page on peers: each probe finds what it looks for, in ways made up for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from support import made_up_ways as ways

from benchmarks.peers import catalogue, command
from benchmarks.peers import page as pages
from benchmarks.peers.adapters import automatic, ours
from benchmarks.peers.findings import Finding, failed, heard
from benchmarks.peers.probes import bad_batches, costs, graphs, lines, operators, state

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def found(probe, kind):
    return {each.column: each.text for each in probe(kind)}


def test_state_that_is_saved_goes_on_and_state_that_is_not_is_found_out():
    assert found(state.probe, ways.Good) == {state.COLUMN: "yes"}
    (text,) = found(state.probe, ways.Forgets).values()
    assert text.startswith("no: nothing to save; network ")
    assert found(state.probe, ways.Refuses) == {state.COLUMN: "RuntimeError: not these"}


def test_what_dies_of_a_nan_is_told_from_what_goes_on():
    good, poisoned = (found(bad_batches.probe, kind) for kind in (ways.Good, ways.Poisoned))
    assert good["NaN once"] == good["infinite once"] == "goes on"
    assert poisoned["NaN once"].startswith("lost: 40 of the next 40 steps")
    assert poisoned["infinite once"] != "goes on"
    assert good["absent (None) once"].startswith("AttributeError: 'NoneType'")
    assert good["0 in 50 steps"] == "goes on"
    assert "% off 40 steps later" in found(bad_batches.probe, ways.Slow)["0 in 50 steps"]


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which the compiler reads, after a break
def test_breaks_are_counted():
    assert found(graphs.probe, ways.Good) == {graphs.BREAKS: "0", graphs.FULL: "yes"}
    broken = found(graphs.probe, ways.Breaks)
    assert int(broken[graphs.BREAKS]) >= 1
    assert broken[graphs.FULL].startswith("no: Unsupported")


def test_syncs_are_counted():
    assert found(operators.probe, ways.Good)[operators.WAITS] == "0"
    assert found(operators.probe, ways.Asks)[operators.WAITS] == "4"
    assert found(operators.probe, ways.Copies)[operators.WAITS] == "3"  # the gradient picks too
    assert found(operators.probe, ours.Plain)[operators.MORE] == "0"


@pytest.mark.parametrize(
    ("kind", "count", "learned"),
    [
        (ours.Plain, "0", "none"),
        (ours.WAYS["Balancer(AdaLoss)"], "2", "none"),
        (automatic.AutomaticStyle, "3", "4"),
    ],
)
def test_lines_are_those_that_differ_from_the_plain_loop(kind, count, learned):
    cells = found(lines.probe, kind)
    assert cells[lines.LINES] == count
    assert cells[lines.MORE] == learned


def test_a_loop_that_trains_otherwise_than_its_way_is_found_out():
    class Other(ways.Good):
        loop = staticmethod(ours.plain)
        make = staticmethod(lambda: None)

    assert "trains otherwise" in found(lines.probe, Other)[lines.LINES]


def test_costs_are_of_each_way_that_runs(monkeypatch):
    monkeypatch.setattr(costs, "INNER", {"a small MLP": 1})

    class Fails(ways.Good):
        def combine(self, losses):
            raise ValueError("no")

    cells = list(costs.compared({"sum(losses)": ours.Plain, "it": ways.Good, "no": Fails}, 3))
    for column in {each.column for each in cells}:
        text = {each.title: each.text for each in cells if each.column == column}
        assert text["no"] == "ValueError: no"
        assert text["sum(losses)"].endswith(" us")
        low, _, high = text["it"].partition(" (")[2].strip(")").partition("-")
        assert 0 < float(low) <= float(high)


def test_a_package_that_is_not_here_is_a_row_with_its_pip_line(monkeypatch):
    absent = catalogue.Library("no-such-package", "nothing", "pip install it", ("Nothing",))
    monkeypatch.setattr(command, "LIBRARIES", (absent,))
    monkeypatch.setitem(command.LIBRARY_OF, "Nothing", absent)
    (row,) = command.missing(["Nothing"])
    assert (row.title, row.text) == ("Nothing", "`pip install it`")


def test_a_process_that_ends_early_is_a_row(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    (row,) = command.probed("probes", ["state", "no such way"], 60, {})
    assert (row.title, row.table) == ("no such way", "Ended early")
    assert "KeyError" in row.text


def test_the_page_is_made_of_rows_and_remarks(tmp_path, monkeypatch):
    rows = [
        Finding("What is kept", "sum(losses)", "kept", "yes", 1.0),
        Finding("What is kept", "another", "other", "no | no"),
        Finding("Of no name", "another", "x", "1"),
        Finding(lines.TABLE, "Balancer(AdaLoss)", lines.LINES, "2", 2),
    ]
    assert [heard(row.line()) for row in rows] == rows
    assert heard("a warning") is None
    remarks = tmp_path / "remarks.md"
    remarks.write_text("# Peers\n\n{machine}\n\n{table What is kept}\n\n{loops}\n")
    monkeypatch.setattr(pages, "REMARKS", remarks)
    text = pages.page(rows, ["## Further\n\nmore\n"])
    assert "| | kept | other |\n|---|---|---|\n| sum(losses) | yes |  |" in text
    assert "| another |  | no \\| no |" in text
    assert "\n## Of no name\n\n| | x |" in text
    assert "+ balance = make()" in text
    assert text.endswith("\n\n## Further\n\nmore\n")
    assert "{machine}" not in text
    assert "{loops}" not in text


def test_a_cell_that_is_measured_again_takes_the_place_of_the_old_one():
    old = [Finding("t", "a", "x", "1"), Finding("t", "b", "x", "2")]
    new = [Finding("t", "a", "x", "3"), Finding("t", "a", "y", "4")]
    assert [each.text for each in command.merged(old, new)] == ["3", "2", "4"]


def test_an_exception_is_its_type_and_first_line():
    assert failed(ValueError("a\nb")) == "ValueError: a"
    assert failed(KeyError()) == "KeyError"
    assert len(failed(ValueError("x" * 500))) < 120


def test_the_command_writes_rows_and_page(tmp_path):
    options = ["--ways", "sum(losses)", "--probes", "alone", "--page", "page.md"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "peers", *options, "--json", "rows.json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)])},
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["title"] for row in rows} == {"sum(losses)"}
    page = (tmp_path / "page.md").read_text()
    assert "| sum(losses) | yes |" in page
    assert "{table" not in page
    assert "Not measured." in page
