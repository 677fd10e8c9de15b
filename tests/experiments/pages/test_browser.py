"""Every page in a real browser: no error, no request, no sideways scrolling, and what it can do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("typer")
pytest.importorskip("torch")  # in one environment: the pages are the same in all
from support.experiments.made_up import finished, member, outcome

from loss_balance.experiments.pages import comparison_page, ensemble_page, runs_page
from loss_balance.experiments.pages.ensemble_tables import Measurement
from loss_balance.experiments.runs.trained import read
from loss_balance.experiments.studies.ensemble import combine

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
LISTENING = """<script>
window.found = {errors: []};
window.addEventListener("error", event => found.errors.push(String(event.message)), true);
console.error = (...words) => found.errors.push(words.join(" "));
</script>"""
ASKING = """<script>
const wide = document.documentElement;
found.width = innerWidth;
found.overflow = wide.scrollWidth - wide.clientWidth;
found.requests = performance.getEntriesByType("resource").map(entry => entry.name);
found.text = getComputedStyle(document.body).color;
const figures = [...document.querySelectorAll(".panels figure")];
found.panels = figures.map(figure => figure.getBoundingClientRect().left);
const table = document.querySelector("table.sortable");
const column = () => [...table.tBodies].map(body => body.rows[0].cells[1].textContent);
table.querySelectorAll("th button")[1].click();
found.sorted = column();
found.sort = table.querySelectorAll("th")[1].getAttribute("aria-sort");
const more = document.querySelector("button.more");
if (more) {
  more.click();
  found.unfolded = [...more.closest("tbody").rows].every(row => !row.hidden);
}
found.csv = atob(document.querySelector("a[download]").href.split(",")[1]);
const said = document.createElement("pre");
said.id = "found";
said.textContent = btoa(unescape(encodeURIComponent(JSON.stringify(found))));
document.body.append(said);
</script>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The three kinds of page, with three seeds where they have seeds."""
    folder = tmp_path_factory.mktemp("pages")
    finished(folder / "runs" / "adaloss-seed0", "adaloss", epochs=3)
    rows = [[60.0, 40, 30, 20], [64.0, 42, 31, 20], [61.0, 40, 33, 21]]
    measured = outcome(3, const=rows, adaloss=[[x + 5 for x in row] for row in rows])
    exhibit = comparison_page.exhibit(folder, measured)
    comparison_page.write(folder, measured, exhibit, {"data": "<digits> & $x$"})
    combined = combine(
        [
            member("a", "adaloss", (1, 2, 4), (0.6, 0.5, 0.4)),
            member("b", "adaloss", (2, 4, 8), (0.45, 0.35, 0.2)),
        ]
    )
    setting = Measurement("digits", "torch", 3)
    seeds = [combined, combined]
    ensemble_page.write(folder, seeds, ensemble_page.exhibit(seeds, setting), setting)
    runs = [finished(folder / f"run{k}", "adaloss", k, error=0.3 + 0.1 * k) for k in range(3)]
    runs.append(finished(folder / "$x$ <b>", "const"))
    (folder / "runs.html").write_bytes(runs_page.page([read(run) for run in runs]))
    return {"comparison": "report.html", "ensemble": "eann.html", "runs": "runs.html"}, folder


def opened(page, folder, width, *flags):
    """What the page's own script finds in a browser window of that width."""
    text = page.read_text().replace("<head>", f"<head>{LISTENING}", 1)
    copy = folder / "asked.html"
    copy.write_text(text.replace("</body>", f"{ASKING}</body>"))
    command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}"]
    command += [f"--window-size={width},900", "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    (coded,) = re.findall(r'<pre id="found">([^<]*)</pre>', done.stdout)
    import base64

    return json.loads(base64.b64decode(coded))


@pytest.mark.skipif(
    CHROMIUM is None and "LOSS_BALANCE_CHROMIUM" not in os.environ, reason="no chromium here"
)
@pytest.mark.parametrize("name", ["comparison", "ensemble", "runs"])
def test_a_page_is_whole_on_its_own_on_any_screen(pages, tmp_path, name):
    files, folder = pages
    wide = opened(folder / files[name], tmp_path, 1280)
    narrow = opened(folder / files[name], tmp_path, 390)
    for found in (wide, narrow):
        assert found["errors"] == []
        assert found["requests"] == []
        assert found["overflow"] <= 0
        assert found["sorted"] == sorted(found["sorted"], key=lambda text: float_or(text))
        assert found["sort"] == "ascending"
        assert found.get("unfolded", True)
        assert len(found["csv"].splitlines()) > 4
    assert len(set(narrow["panels"])) == 1  # one below another
    assert len(set(wide["panels"])) == 2  # side by side
    assert narrow["width"] <= 500


def float_or(text):
    match = re.match(r"[\d.]+", text)
    return (float(match[0]), "") if match else (0.0, text)


@pytest.mark.skipif(
    CHROMIUM is None and "LOSS_BALANCE_CHROMIUM" not in os.environ, reason="no chromium here"
)
def test_a_dark_screen_gets_light_text(pages, tmp_path):
    files, folder = pages
    light = opened(folder / files["runs"], tmp_path, 1280)
    dark = opened(folder / files["runs"], tmp_path, 1280, "--blink-settings=preferredColorScheme=0")
    assert sum(map(int, re.findall(r"\d+", light["text"]))) < 200
    assert sum(map(int, re.findall(r"\d+", dark["text"]))) > 600


@pytest.mark.parametrize("name", ["comparison", "ensemble", "runs"])
def test_the_same_numbers_make_the_same_page_and_names_are_no_markup(pages, name):
    files, folder = pages
    text = (folder / files[name]).read_text()
    assert "http" not in re.sub(r'"http://www\.w3\.org/[^"]*"', "", text)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    if name == "comparison":
        assert "&lt;digits&gt; &amp; $x$" in text
    if name == "runs":
        assert "$x$ &lt;b&gt;" in text
        again = runs_page.page(
            [read(folder / f"run{k}") for k in range(3)] + [read(folder / "$x$ <b>")]
        )
        assert again.decode() == text
