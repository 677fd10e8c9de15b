"""`loss-balance serve`: a trained network over HTTP, each answer by the deadline of its request."""

from __future__ import annotations

import io
import os
import socket
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from loss_balance.experiments.errors import UserError
from loss_balance.extras import require

try:
    require("serve", "loss-balance serve")
except ImportError as _missing:
    raise UserError(str(_missing)) from _missing

import uvicorn

from loss_balance.experiments.commands import options as opts
from loss_balance.experiments.data.preparation import Preparation
from loss_balance.experiments.runs.deployment import exported
from loss_balance.experiments.runs.deployment.exported import Exported
from loss_balance.experiments.runs.trained import Trained, read
from loss_balance.experiments.serving.app import MAX_BODY, application
from loss_balance.experiments.serving.metrics import Metrics
from loss_balance.experiments.serving.padding import Padded
from loss_balance.experiments.serving.replies import Served
from loss_balance.experiments.serving.requests import Network
from loss_balance.experiments.serving.scheduler import Scheduler
from loss_balance.experiments.serving.service import Service
from loss_balance.experiments.serving.times import batch_sizes, measured, noise
from loss_balance.experiments.terminal import console

DRAIN_SECONDS = 30  # for what is being answered when the service is told to end
CONNECTIONS = 1000  # beyond, uvicorn answers 503 itself


@opts.shows(as_json=False)
def serve(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a finished run, or of its export to onnx."),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 127.0.0.1 is this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8000,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Requests that are computed together, at most.")
    ] = 8,
    queue: Annotated[
        int, typer.Option(min=1, help="Requests that may wait; more get status 429.")
    ] = 64,
    max_body: Annotated[
        int, typer.Option(min=1, help="Bytes of a request's body; more get status 413.")
    ] = MAX_BODY,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads that PyTorch computes an exit with.")
    ] = 1,
) -> None:
    """Answer over HTTP: images in, each answer by its request's deadline.

    Until Ctrl-C or SIGTERM; what was taken by then is still answered.
    """
    trained = exported.read(run) if exported.is_one(run) else read(run)
    with _listening(host, port) as listener:
        scheduler, metrics = _scheduler(trained, max_batch, queue, threads)
        image = noise(trained.input_shape, 1)
        service = Service(scheduler, warm_up=lambda: list(scheduler.network.anytime(image)))
        app = application(service, _served(trained), metrics, max_body=max_body)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # it would tell what was asked
            lifespan="on",
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        name, number = listener.getsockname()[:2]
        shown = f"[{name}]" if ":" in name else name
        console.say(f"{trained.name} answers at http://{shown}:{number}, Ctrl-C ends it")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:  # the signal that ended it, passed on once all was answered
            console.say("ended")


def _listening(host: str, port: int) -> socket.socket:
    """The socket, bound before anything slow is done.

    It says that it is TCP: else asyncio leaves Nagle's algorithm on, and answers wait for 40 ms.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # as `socket.create_server`
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(CONNECTIONS)
    except OSError as error:
        listener.close()
        raise UserError(
            f"--host and --port must be free to listen on, got {host} {port}: {error.strerror}"
        ) from error
    return listener


def _scheduler(
    run: Trained | Exported, max_batch: int, queue: int, threads: int
) -> tuple[Scheduler, Metrics]:
    """Both know the network's times, which are measured here."""
    network: Network = run.network
    if threads > 1:
        _use_threads(run.framework, threads)
    if run.framework == "jax":
        network = padded = Padded(network, batch_sizes(max_batch))
        with console.working("the network is compiled"):
            padded.warm_up(noise(run.input_shape, max_batch))
    with console.working("the network's exits are timed"):
        times = measured(network, run.input_shape, max_batch)
    metrics = Metrics(times.exits, times.most)
    errors = run.validation_error
    scheduler = Scheduler(network, times, queue=queue, errors=errors, observe=metrics.computed)
    metrics.watch(lambda: len(scheduler))
    return scheduler, metrics


def _use_threads(framework: str, threads: int) -> None:
    if framework != "torch":
        raise UserError(f"--threads must be 1 for a network in {framework}")
    import torch

    torch.set_num_threads(threads)


def _served(run: Trained | Exported) -> Served:
    """What is told of the network; an image has been prepared by then, so that none waits."""
    shape = run.input_shape
    prepare = partial(run.preparation.decode, shape=shape)
    _warm_up(run.preparation, shape)
    return Served(
        name=run.name,
        exits=run.num_exits,
        input_shape=shape,
        class_names=run.preparation.class_names,
        prepare=prepare,
    )


def _warm_up(preparation: Preparation, shape: tuple[int, int, int]) -> None:
    """Loads what a first image would wait for."""
    from PIL import Image

    content = io.BytesIO()
    if np.isnan(preparation.white) or shape[2] not in (1, 3):
        np.save(content, np.zeros(shape, np.float32))
    else:
        Image.new("RGB", (shape[1], shape[0])).save(content, "PNG")
    preparation.decode(content.getvalue(), shape)
