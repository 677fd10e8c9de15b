"""The service over HTTP, with a network that is none: what is answered, and what is refused."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import logging
import threading
import time

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")
pytest.importorskip("httpx2")
pytest.importorskip("PIL")
from PIL import Image
from starlette.testclient import TestClient
from support.experiments.serving import Gated, times

from loss_balance.experiments.data import pictures
from loss_balance.experiments.data.preparation import Preparation
from loss_balance.experiments.serving import intake
from loss_balance.experiments.serving.app import application
from loss_balance.experiments.serving.metrics import Metrics
from loss_balance.experiments.serving.replies import Served
from loss_balance.experiments.serving.scheduler import Scheduler
from loss_balance.experiments.serving.service import Service

SHAPE = (4, 6, 1)
ONE = np.ones(1, np.float32)
PREPARATION = Preparation(0 * ONE, ONE, 255.0, False, ("cat", "lynx", "puma"))
FAST = times(1e-9, 1e-9, 1e-9)


def picture(value, size=(6, 4), kind="PNG"):
    """The content of an image file, all of one value."""
    content = io.BytesIO()
    Image.new("L", size, value).save(content, kind)
    return content.getvalue()


def served(network=None, max_body=10_000, expected=FAST, **options):
    """A client of a service that runs while it is entered."""
    metrics = Metrics(expected.exits, expected.most)
    network = Gated() if network is None else network
    scheduler = Scheduler(network, expected, observe=metrics.computed, **options)
    metrics.watch(lambda: len(scheduler))
    described = Served(
        name="made-up",
        exits=expected.exits,
        input_shape=SHAPE,
        class_names=PREPARATION.class_names,
        prepare=lambda data: PREPARATION.decode(data, SHAPE),
    )
    service = Service(scheduler)
    client = TestClient(application(service, described, metrics, max_body=max_body))
    client.scheduler = scheduler
    return client


@pytest.fixture(scope="module")
def client():
    with served() as client:
        yield client


def counted(client, line):
    """The number in that line of the metrics."""
    for text in client.get("/metrics").text.splitlines():
        if text.startswith(f"loss_balance_{line} "):
            return float(text.split()[-1])
    raise AssertionError(f"no {line}")


def events(text):
    """(kind, data) of a stream of server-sent events."""
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    for kind, data in blocks:
        assert kind.startswith("event: ")
        assert data.startswith("data: ")
    return [(kind[7:], json.loads(data[6:])) for kind, data in blocks]


def until(true):
    """Waits for what other threads do; a test that hangs fails by pytest's own limit."""
    while not true():
        time.sleep(0.001)


@pytest.mark.parametrize(("value", "name"), [(0, "cat"), (1, "lynx"), (2, "puma"), (3, "cat")])
def test_without_a_deadline_the_last_exit_answers(client, value, name):
    found = client.post("/predict", content=picture(value)).json()
    assert found["name"] == name
    assert found["class"] == value % 3
    assert (found["exit"], found["exits"], found["batch"]) == (2, 3, 1)
    assert found["probability"] == pytest.approx(np.exp(3) / (np.exp(3) + 2), abs=1e-6)
    assert found["deadline_ms"] is None
    assert found["late"] is False
    assert found["elapsed_ms"] > 0


@pytest.mark.parametrize(
    ("query", "headers", "form", "expected"),
    [
        ("?deadline_ms=60000", {}, None, 60_000),
        ("", {"Deadline-Ms": "50000.5"}, None, 50_000.5),
        ("", {}, {"deadline_ms": "40000"}, 40_000),
        ("?deadline_ms=60000", {"deadline-ms": "1"}, {"deadline_ms": "2"}, 60_000),
        ("?deadline_ms=", {}, {}, None),
    ],
)
def test_a_deadline_comes_by_query_header_or_form(client, query, headers, form, expected):
    if form is None:
        sent = {"content": picture(1)}
    else:
        sent = {"files": {"image": ("a.png", picture(1))}, "data": form}
    found = client.post(f"/predict{query}", headers=headers, **sent)
    assert found.status_code == 200, found.text
    assert found.json()["deadline_ms"] == expected
    assert found.json()["name"] == "lynx"


def test_an_idle_service_answers_by_its_first_exit_however_late():
    slow = times(1.0, 1.0)  # expected, so that the second exit is not begun
    with served(Gated(2), expected=slow) as client:
        found = client.post("/predict?deadline_ms=0", content=picture(2)).json()
        assert (found["exit"], found["late"], found["name"]) == (0, True, "puma")
        assert counted(client, 'deadlines_total{met="no"}') == 1


def test_an_array_is_taken_in_the_training_images_values(client):
    content = io.BytesIO()
    np.save(content, np.full(SHAPE, 2.0, np.float32))
    assert client.post("/predict", content=content.getvalue()).json()["name"] == "puma"


def bomb(side):
    """A small file that says it is a large picture."""
    whole = bytearray(picture(0, (1, 1), "BMP"))
    whole[18:26] = side.to_bytes(4, "little") * 2
    return bytes(whole)


def array(values):
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "status", "rule"),
    [
        (b"", 400, "the body must be an image, or a form with one, got nothing"),
        (b"no image at all", 415, "an image must be one of JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "one of JPEG, PNG"),
        (picture(1, (90, 90), "BMP")[:-99], 400, "an image must be whole"),
        (bomb(9000), 400, "9000 x 9000 pixels, over 67,108,864"),
        (bomb(10_000), 400, "an image must be whole and of usual size"),
        (bomb(30_000), 400, "an image must be whole and of usual size"),
        (array(np.zeros((4, 7))), 400, "finite numbers of shape (4, 6, 1), got float64 (4, 7, 1)"),
        (array(np.array([None])), 400, "the image must be one array of numbers"),
        (b"\x93NUMPY\x01\x00", 400, "the image must be one array of numbers"),
        (b"x" * 10_001, 413, "a body must be of at most 10,000 bytes"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(client, content, status, rule):
    before = counted(client, 'requests_total{outcome="bad"}')
    found = client.post("/predict", content=content)
    assert found.status_code == status, found.text
    assert rule in found.json()["error"]
    assert len(found.json()["error"].splitlines()) == 1
    assert "0x" not in found.text
    assert counted(client, 'requests_total{outcome="bad"}') == before + 1


@pytest.mark.parametrize("text", ["nan", "-1", "inf", "soon", "1e999", "1" * 999 + "x"])
def test_a_deadline_that_is_none_is_refused(client, text):
    for sent in (
        {"url": f"/predict?deadline_ms={text}", "content": picture(1)},
        {"url": "/predict", "headers": {"deadline-ms": text}, "content": picture(1)},
        {"url": "/predict", "files": {"a": picture(1)}, "data": {"deadline_ms": text}},
        {"url": f"/predict/stream?deadline_ms={text}", "content": picture(1)},
    ):
        found = client.post(**sent)
        assert found.status_code == 400
        assert found.json()["error"].startswith("deadline_ms must be milliseconds from 0 up, got ")
        assert len(found.text) < 150


@pytest.mark.parametrize(
    "form",
    [
        {"files": {"a": b"1", "b": b"2"}},
        {"data": dict.fromkeys("abcdef", "1"), "files": {"a": b"1"}},
    ],
)
def test_a_form_of_another_kind_is_refused(client, form):
    found = client.post("/predict", **form)
    assert found.status_code == 400
    assert "a form must have one image" in found.json()["error"]


def called(application, messages, address="/predict", headers=()):
    """(status or None, how many messages it took) of a call beneath HTTP."""
    taken, sent = [], []

    async def receive():
        taken.append(await next(messages))
        return taken[-1]

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": address,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    asyncio.run(application(scope, receive, send))
    return next((each["status"] for each in sent if "status" in each), None), len(taken)


async def message(body=b"", more=True):
    return {"type": "http.request", "body": body, "more_body": more}


def test_of_a_body_that_is_too_large_no_more_is_read_than_shows_it():
    application = served(max_body=5000).app
    endless = (message(b"x" * 1000) for _ in itertools.count())
    assert called(application, endless) == (413, 6)
    endless = (message(b"x" * 1000) for _ in itertools.count())
    assert called(application, endless, headers=[("content-length", "5001")]) == (413, 0)


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(intake, "BODY_SECONDS", 0.01)
    never = (asyncio.Event().wait() for _ in itertools.count())
    assert called(served().app, never) == (408, 0)


@pytest.mark.parametrize("address", ["/predict", "/predict/stream"])
def test_who_hangs_up_is_not_computed(address):
    gate = threading.Event()
    network = Gated(gate=gate)
    with served(network) as client:
        first = in_thread(lambda: client.post("/predict", content=picture(1)))
        until(lambda: not client.scheduler.idle and len(client.scheduler) == 0)

        async def hang_up():
            while len(client.scheduler) == 0:
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}

        called(client.app, iter([message(picture(1), more=False), hang_up()]), address)
        assert len(client.scheduler) == 0
        gate.set()
        first[0].join()
        assert sum(size for _, size in network.batches) == 3
        assert counted(client, 'requests_total{outcome="gone"}') == 1


def test_other_addresses_and_methods_are_not_there(client):
    assert client.get("/predict").status_code == 405
    assert client.get("/nothing").status_code == 404


def test_a_stream_has_an_event_for_each_exit_and_ends_with_what_counts():
    with served(errors=[0.3, 0.1, 0.2]) as client:
        answer = client.post("/predict/stream", content=picture(2))
        assert answer.headers["content-type"].startswith("text/event-stream")
        *each, (last, found) = events(answer.text)
        assert [(kind, data["exit"]) for kind, data in each] == [("answer", k) for k in range(3)]
        assert last == "done"
        assert found == each[1][1]  # of the least validation error
        assert client.post("/predict", content=picture(2)).json()["exit"] == 1
        assert counted(client, 'answers_total{exit="1"}') == 2


def test_what_the_network_raises_is_a_500_without_its_words(caplog):
    error = ValueError("the secret in the image")
    with served(Gated(error=error)) as client, caplog.at_level(logging.DEBUG):
        found = client.post("/predict", content=picture(1))
        assert found.status_code == 500
        assert found.json() == {"error": "the network failed on this image or one in its batch"}
        (event,) = events(client.post("/predict/stream", content=picture(1)).text)
        assert event[0] == "error"
        assert event[1]["status"] == 500
        assert counted(client, 'requests_total{outcome="failed"}') == 2
    assert "the network raised ValueError" in caplog.text
    assert "secret" not in caplog.text


def in_thread(call):
    """(thread, where its result will be)"""
    results = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    return thread, results


def test_beyond_the_queue_429_at_once_and_who_waits_is_computed_together():
    gate = threading.Event()
    network = Gated(gate=gate)
    with served(network, queue=3) as client:
        post = lambda: client.post("/predict", content=picture(1))  # noqa: E731
        first = in_thread(post)
        until(lambda: not client.scheduler.idle and len(client.scheduler) == 0)
        others = [in_thread(post) for _ in range(3)]
        until(lambda: len(client.scheduler) == 3)
        assert counted(client, "queue_length") == 3
        refused = client.post("/predict", content=b"never looked at")
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json() == {"error": "no more than 3 requests may wait"}
        assert client.post("/predict/stream", content=picture(1)).status_code == 429
        gate.set()
        for thread, _ in (first, *others):
            thread.join()
        assert first[1][0].json()["batch"] == 1
        assert [results[0].json()["batch"] for _, results in others] == [3, 3, 3]
        assert counted(client, 'requests_total{outcome="full"}') == 2
        assert counted(client, 'requests_total{outcome="answered"}') == 4
        assert counted(client, 'batch_size_bucket{exit="0",le="2.0"}') == 1
        assert counted(client, 'batch_size_count{exit="0"}') == 2


def test_a_deadline_that_cannot_be_kept_is_a_503_before_the_image_is_looked_at():
    gate = threading.Event()
    with served(Gated(gate=gate), expected=times(5.0, 5.0, 5.0)) as client:
        first = in_thread(lambda: client.post("/predict", content=picture(1)))
        until(lambda: not client.scheduler.idle)
        refused = client.post("/predict?deadline_ms=1000", content=b"never looked at")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "the deadline cannot be kept" in refused.json()["error"]
        gate.set()
        first[0].join()
        assert first[1][0].status_code == 200
        assert counted(client, 'requests_total{outcome="too-late"}') == 1


def test_what_was_taken_is_answered_when_the_service_ends():
    gate = threading.Event()
    network = Gated(gate=gate)
    with served(network) as client:
        waiting = [in_thread(lambda: client.post("/predict", content=picture(1))) for _ in range(3)]
        until(lambda: network.begun + len(client.scheduler) == 3)
        client.scheduler.close()
        assert client.get("/health").status_code == 503
        late = client.post("/predict", content=picture(1))
        assert (late.status_code, late.json()) == (503, {"error": "the service is about to end"})
        gate.set()
        for thread, _ in waiting:
            thread.join()
    assert [results[0].status_code for _, results in waiting] == [200, 200, 200]


def test_health_says_what_answers(client):
    found = client.get("/health")
    assert found.status_code == 200
    assert found.json() == {
        "status": "ready",
        "network": "made-up",
        "input_shape": [4, 6, 1],
        "classes": ["cat", "lynx", "puma"],
        "exits": 3,
        "expected_ms": found.json()["expected_ms"],
        "waiting": 0,
        "queue": 64,
        "max_batch": 4,
    }
    assert len(found.json()["expected_ms"]) == 3


def test_two_services_count_for_themselves(client):
    client.post("/predict", content=picture(1))
    with served() as other:
        assert counted(other, 'requests_total{outcome="answered"}') == 0
        assert counted(client, 'requests_total{outcome="answered"}') >= 1


def test_the_page_is_one_file_that_asks_nobody_else(client):
    found = client.get("/")
    assert "http:" not in found.text
    assert "https:" not in found.text
    assert "default-src 'none'" in found.headers["content-security-policy"]


def test_bytes_and_files_make_the_same_input(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 65536, (9, 7), np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).save(tmp_path / "b.webp")
    for file in sorted(tmp_path.iterdir()):
        opened, decoded = (
            PREPARATION.open(file, SHAPE),
            PREPARATION.decode(file.read_bytes(), SHAPE),
        )
        assert np.array_equal(opened, decoded)
    with pytest.raises(pictures.NoPictureError):
        PREPARATION.decode(b"text", SHAPE)
