"""The page in a real browser, against a real server: what one does there, and what one sees."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")
pytest.importorskip("PIL")
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from support.experiments.running import running
from support.experiments.serving import CLASSES, times

from loss_balance.experiments.data.preparation import Preparation
from loss_balance.experiments.serving.app import PAGE_POLICY, application
from loss_balance.experiments.serving.metrics import Metrics
from loss_balance.experiments.serving.replies import Served
from loss_balance.experiments.serving.scheduler import Scheduler
from loss_balance.experiments.serving.service import Service

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and "LOSS_BALANCE_CHROMIUM" not in os.environ, reason="no chromium here"
)
ONE = np.ones(1, np.float32)
PREPARATION = Preparation(0 * ONE, ONE, 255.0, False, ("cat", "lynx", "puma"))
SHAPE = (4, 6, 1)
# The page is loaded only once this picture is, which comes when the script has said what it found.
DOING = """<img src="wait" alt="" style="position: fixed"><script>
const found = {errors: []};
addEventListener("error", event => found.errors.push(String(event.message)));
const soon = () => new Promise(go => setTimeout(go, 5));
const settled = async call => {
  const before = document.body.dataset.settled || 0;
  call();
  while ((document.body.dataset.settled || 0) === before) await soon();
};
const rows = () => [...document.querySelectorAll("#exits li")];
const seen = () => ({
  answer: document.getElementById("answer").innerText,
  error: document.getElementById("error").innerText,
  exits: rows().map(row => row.innerText.replace(/\\s+/g, " ")),
  used: rows().findIndex(row => row.className === "used"),
  deadline: document.getElementById("shown").innerText,
});
const slide = (...values) => settled(() => values.forEach(value => {
  const slider = document.getElementById("deadline");
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
}));
async function give(content, name) {
  const files = new DataTransfer();
  files.items.add(new File([content], name, {type: "image/png"}));
  const drop = new DragEvent("drop", {dataTransfer: files, cancelable: true});
  await settled(() => dispatchEvent(drop));
}
async function picture() {
  const canvas = Object.assign(document.createElement("canvas"), {width: 60, height: 40});
  const context = canvas.getContext("2d");
  context.fillStyle = "rgb(2, 2, 2)";
  context.fillRect(0, 0, 60, 40);
  return new Promise(done => canvas.toBlob(done));
}
(async () => {
  while (!health) await soon();
  try { await doing(); } catch (error) { found.errors.push(String(error)); }
  const wide = document.documentElement;
  found.overflow = wide.scrollWidth - wide.clientWidth;
  found.color = getComputedStyle(document.body).color;
  found.hosts = performance.getEntriesByType("resource").map(entry => new URL(entry.name).origin);
  found.origin = location.origin;
  await fetch("found", {method: "POST", body: JSON.stringify(found)});
})();
async function doing() { %s }
</script>"""
TRY_ALL = """
  found.start = seen();
  await give(await picture(), "<b>night</b>.png");
  found.streamed = seen();
  await slide(900, 500, 1);
  found.near = seen();
  await slide(1000);
  found.far = seen();
  await settled(() => document.getElementById("all").click());
  found.again = seen();
  await give(new Blob(["text"]), "no.png");
  found.broken = seen();
  const focusable = document.querySelectorAll("input, button");
  found.focusable = [...focusable].filter(each => each.tabIndex === 0).length;
"""


class Slow:
    """Three exits of 20 ms: the deadlines of the page lie between and beyond them."""

    def anytime(self, images):
        rows = np.asarray(images).mean(axis=(1, 2, 3))
        for exit_ in range(3):
            asyncio.run(asyncio.sleep(0.02))
            logits = np.zeros((len(rows), CLASSES))
            logits[np.arange(len(rows)), np.rint(rows).astype(int) % CLASSES] = 1.0 + exit_
            kept = yield logits
            rows = rows if kept is None else rows[kept]


def tried(doing, folder, *flags):
    """What the script found in the page, from a browser with these flags."""
    said, posts = [], []
    expected = times(0.02, 0.02, 0.02)
    service = Service(Scheduler(Slow(), expected))
    served = Served(
        name="resann-9-32",
        exits=3,
        input_shape=SHAPE,
        class_names=PREPARATION.class_names,
        prepare=lambda data: posts.append(len(data)) or PREPARATION.decode(data, SHAPE),
    )
    app = application(service, served, Metrics(3, 4))
    page = next(route.endpoint for route in app.routes if route.path == "/")
    done = asyncio.Event()

    async def tested(request):
        text = (await page(request)).body.decode().replace("</body>", DOING % doing + "</body>")
        policy = PAGE_POLICY.replace("img-src", "img-src 'self'")
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

    async def wait(_):
        await done.wait()
        return Response(status_code=404)

    async def found(request):
        said.append(await request.json())
        done.set()
        return Response()

    app.router.routes += [
        Route("/tested", tested),
        Route("/wait", wait),
        Route("/found", found, methods=["POST"]),
    ]
    with running(app) as address:
        command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}"]
        command += [f"{address}/tested"]
        subprocess.run(command, capture_output=True, check=True, timeout=120)
    (result,) = said
    assert result["errors"] == []
    assert set(result["hosts"]) == {result["origin"]}  # nobody else is asked
    assert result["overflow"] <= 0
    return result, len(posts)


def test_one_drops_an_image_drags_the_deadline_and_sees_the_answer_change(tmp_path):
    found, posts = tried(TRY_ALL, tmp_path, "--window-size=1280,900", "--dump-dom")
    assert found["start"]["answer"] == "No image yet."
    assert len(found["start"]["exits"]) == 3
    assert found["start"]["deadline"] == "none"
    assert re.search(r"puma\s+probability \d+\.\d %\s+exit 3 of 3", found["streamed"]["answer"])
    assert all("puma" in row for row in found["streamed"]["exits"])
    assert found["streamed"]["used"] == 2
    assert re.search(r"exit 1 of 3 after .*, deadline \d+\.?\d* ms, late", found["near"]["answer"])
    assert found["near"]["used"] == 0
    assert found["near"]["deadline"].endswith(" ms")
    assert "exit 3 of 3" in found["far"]["answer"]
    assert "no deadline" in found["far"]["answer"]
    assert all("puma" in row for row in found["again"]["exits"])
    assert found["broken"]["error"].startswith("an image must be one of")
    assert found["broken"]["answer"] == "No answer."
    assert found["streamed"]["error"] == found["far"]["error"] == ""
    assert found["focusable"] == 3
    assert posts == 5  # of three deadlines in a row the last one alone was asked for


def test_it_fits_a_phone_and_a_dark_screen(tmp_path):
    doing = "await give(await picture(), 'a.png');"
    flags = ("--window-size=390,900", "--dump-dom", "--blink-settings=preferredColorScheme=0")
    found, _ = tried(doing, tmp_path, *flags)
    assert sum(map(int, re.findall(r"\d+", found["color"]))) > 600
