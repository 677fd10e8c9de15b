"""An application behind a real server on loopback, in a thread."""

from __future__ import annotations

import contextlib
import socket
import threading

import uvicorn


@contextlib.contextmanager
def running(application):
    """Its address, while it is entered; at the end it is told to end, and waited for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(application, log_level="warning", access_log=False, lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
