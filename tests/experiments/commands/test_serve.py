"""`loss-balance serve`: a run over HTTP from a process of its own, and how that ends."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

for needed in ("sklearn", "typer", "torch", "starlette", "uvicorn", "prometheus_client"):
    pytest.importorskip(needed)
pytest.importorskip("python_multipart")
from support.experiments.command_line import call, one_line, train
from support.experiments.command_process import hearing_ctrl_c

from loss_balance.experiments.runs.trained import read


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "digits"
    status, _, complaint = train(folder)
    assert status == 0, complaint
    return folder


@contextlib.contextmanager
def service(run, *options, ends_by=signal.SIGTERM):
    """The address of a service; at the end it is told to end, and must do so in peace."""
    command = [sys.executable, "-m", "loss_balance", "serve", str(run), "--port", "0", "--quiet"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with hearing_ctrl_c():
        process = subprocess.Popen([*command, *options], **pipes, text=True)
    with process:
        try:
            said = process.stdout.readline()
            yield re.search(r"answers at (http://127\.0\.0\.1:\d+), ", said)[1]
            process.send_signal(ends_by)
            rest, complaint = process.communicate(timeout=100)
            assert (process.returncode, rest, complaint) == (0, "ended\n", "")
        finally:
            process.kill()


def ask(address, body=None):
    """(status, text) of a GET, or of a POST of that body."""
    try:
        with urllib.request.urlopen(address, body, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode()


@pytest.mark.parametrize("ends_by", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_as_the_network_does_and_ends_when_it_is_told_to(run, ends_by):
    trained = read(run)
    images = np.random.default_rng(0).integers(0, 17, (4, 8, 8)).astype(np.float32)
    logits = list(trained.network.anytime(trained.preparation.standardise(images[..., None])))
    with service(run, "--max-batch", "3", ends_by=ends_by) as address:
        for k, image in enumerate(images):
            content = io.BytesIO()
            np.save(content, image)
            status, text = ask(f"{address}/predict?deadline_ms=60000", content.getvalue())
            found = json.loads(text)
            assert (status, found["exit"], found["late"]) == (200, len(logits) - 1, False)
            assert found["class"] == logits[-1][k].argmax()
        assert json.loads(ask(f"{address}/health")[1])["max_batch"] == 3
        assert "loss_balance_requests_total" in ask(f"{address}/metrics")[1]
        assert ask(f"{address}/predict", b"x")[0] == 415
        assert "<!doctype html>" in ask(f"{address}/")[1]


def test_an_export_is_served_as_its_run_is(run, tmp_path):
    pytest.importorskip("onnxscript")
    assert call("export", run, "--to", "onnx", "--output", tmp_path / "export")[0] == 0
    pixels = np.random.default_rng(0).uniform(0, 16, (8, 8)).astype(np.float32)
    body = io.BytesIO()
    np.save(body, pixels)
    found = []
    for folder in (run, tmp_path / "export"):
        with service(folder) as address:
            found.append(json.loads(ask(f"{address}/predict", body.getvalue())[1]))
    first, second = found
    assert (second["class"], second["exit"]) == (first["class"], first["exit"])
    assert second["probability"] == pytest.approx(first["probability"], rel=1e-4)
    message = "--threads must be 1 for a network in onnxruntime"
    assert message in one_line(*call("serve", tmp_path / "export", "--port", "0", "--threads", "2"))


def test_what_is_being_answered_when_it_is_told_to_end_is_answered(run):
    content = io.BytesIO()
    np.save(content, np.zeros((8, 8), np.float32))
    body = content.getvalue()
    with service(run) as address:
        host, port = re.search(r"//(.*):(\d+)", address).groups()
        late = socket.create_connection((host, int(port)), timeout=60)
        late.sendall(
            f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        )
        late.sendall(body[:10])
        assert ask(f"{address}/health")[0] == 200  # by then the service has seen the beginning

        def go_on():
            with contextlib.suppress(ConnectionError):
                while True:  # until it takes no more connections
                    socket.create_connection((host, int(port)), timeout=60).close()
            late.sendall(body[10:])

        thread = threading.Thread(target=go_on)
        thread.start()
    thread.join()
    with late:
        assert late.recv(100).startswith(b"HTTP/1.1 200")


def test_an_address_that_is_taken_is_said_in_one_line(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = one_line(*call("serve", run, "--port", taken.getsockname()[1]))
    assert "--host and --port must be free to listen on, got 127.0.0.1" in line


def test_what_is_no_run_is_said_in_one_line(run, tmp_path):
    assert "RUN must be the folder of a finished run" in one_line(*call("serve", tmp_path))
    damaged = shutil.copytree(run, tmp_path / "damaged")
    (damaged / "weights.npz").write_bytes(b"no weights")
    assert str(damaged / "weights.npz") in one_line(*call("serve", damaged, "--port", 0))


@pytest.mark.parametrize("option", ["--max-batch", "--queue", "--max-body", "--threads"])
def test_a_count_that_is_none_is_refused(run, option):
    assert option in one_line(*call("serve", run, option, "0"))


def test_a_missing_extra_is_said_in_one_line(run):
    code = (
        "import sys\nsys.modules['uvicorn'] = None\nfrom loss_balance.experiments import cli\n"
        f"sys.argv = ['loss-balance', 'serve', {str(run)!r}]\ncli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    line = one_line(done.returncode, done.stdout, done.stderr)
    assert "pip install 'loss-balance[experiments,serve]'" in line
