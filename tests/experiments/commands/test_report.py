"""`loss-balance report`: any runs on one page, which needs nothing beside itself."""

from __future__ import annotations

import base64
import json
import re
from html import unescape

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("typer")
pytest.importorskip("torch")

from support.experiments.command_line import call

QUICK = ["--network", "resann-1-4", "--epochs", "2", "--batch-size", "256"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for name, options in {
        "adaloss": ["--data", "digits"],
        "nested/const": ["--data", "digits", "--scheme", "const"],
        "held-out": ["--data", "digits", "--scheme", "const", "--validation"],
    }.items():
        status, _, complaint = call("train", *QUICK, *options, "--out", folder / name)
        assert status == 0, complaint
    return folder


@pytest.fixture(scope="module")
def page(runs):
    status, printed, complaint = call("report", runs, "--out", runs / "page.html")
    assert status == 0, complaint
    assert printed.startswith("3 runs: ")
    return (runs / "page.html").read_text()


def rows(page):
    found = re.findall(r"<tr>(.*?)</tr>", page, re.S)
    return [[unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in found]


def test_the_page_stands_alone(page):
    assert not re.search(r"(?:src|href)\s*=\s*\"(?!data:|#)", page)
    assert not re.search(r"https?://(?!www.w3.org/)|@import|url\((?!#)|<script src", page)
    assert page.count("<svg ") == 7  # curves of both kinds of images, and AdaLoss's weights
    (numbers,) = re.findall(r"data:text/csv;base64,([^\"]+)", page)
    assert len(base64.b64decode(numbers).splitlines()) == 1 + 3 * 3  # a row per run and exit


def test_the_table_is_what_the_runs_measured(runs, page):
    table = {row[-1]: row for row in rows(page) if len(row) == 11}
    assert set(table) == {"adaloss", "nested/const", "held-out"}
    for name, row in table.items():
        result = json.loads((runs / name / "result.json").read_text())
        errors = [f"{100 * error:.2f}" for error in result["test_error"]]
        assert row[5:9] == [errors[0], errors[0], errors[1], errors[2]]  # costs 0.43, 0.71, 1
        assert row[9] == f"{result['train_loss'][-1]:.4f}"
        assert row[0] == "resann-1-4"
        assert row[2] == ("adaloss" if name == "adaloss" else "const")
    assert table["held-out"][1] == "digits, held out"


def test_errors_of_other_images_are_not_in_one_figure(page):
    assert page.count("<h2>Curves on ") == 2
    assert "<h2>Curves on digits</h2>" in page
    assert "<h2>Curves on digits, held out</h2>" in page
    said = "Weights that are the same for all exits throughout: resann-1-4, const."
    assert page.count(said) == 2


def test_what_is_common_and_what_differs_is_told_apart(page):
    assert ["recipe epochs", '<code style="white-space: normal">2</code>'] in rows(page)
    differing = page.partition("What differs")[2]
    for key in ("scheme", "data validation", "fingerprint"):
        assert f">{key}</button></th>" in differing
    assert ">recipe epochs</button></th>" not in differing
    assert "AdaLoss(" in differing


def test_the_same_runs_make_the_same_page_and_none_counts_twice(runs, page):
    places = [runs, runs / "adaloss", runs / "nested"]
    status, printed, _ = call("report", *places, "--out", runs / "page.html")
    assert (status, printed.split(":")[0]) == (0, "3 runs")
    assert (runs / "page.html").read_text() == page


def test_what_cannot_be_reported_is_one_line_and_nothing_is_lost(runs, tmp_path):
    (tmp_path / "thesis.html").write_text("years of work")
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    for file in (runs / "adaloss").iterdir():
        (tmp_path / "odd" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "odd" / "result.json").write_text("{}")
    cases = [
        ((runs, "--out", tmp_path / "thesis.html"), "a new file or a page of this command"),
        ((runs, "--out", tmp_path / "empty"), "a new file or a page of this command"),
        ((tmp_path / "empty", "--out", tmp_path / "page.html"), "RUNS must have finished runs"),
        ((tmp_path / "none", "--out", tmp_path / "page.html"), "RUNS must have finished runs"),
        (
            (tmp_path / "odd", "--out", tmp_path / "page.html"),
            "result.json must be as training left it",
        ),
    ]
    for arguments, message in cases:
        status, _, complaint = call("report", *arguments)
        assert (status, message in complaint) == (2, True), complaint
    assert (tmp_path / "thesis.html").read_text() == "years of work"
    assert not (tmp_path / "page.html").exists()
