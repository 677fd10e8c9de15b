"""One process of the block for several hosts: `python jax_hosts.py [VICTIM]`.

The victim, a process's number, is killed when it is about to hand over its eighth batch.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any
from unittest import mock

import jax
from support.docs.pages import run

if __name__ == "__main__":
    hand_over, handed = jax.make_array_from_process_local_data, []

    def watched(*args: Any) -> Any:
        handed.append(args)
        if len(handed) == 8 and sys.argv[1:] == [os.environ["PROCESS"]]:
            os.kill(os.getpid(), signal.SIGKILL)
        return hand_over(*args)

    with mock.patch.object(jax, "make_array_from_process_local_data", watched):
        run("distributed/jax.md", "hosts")
    sys.stdout.write(f"steps {len(handed)}\n")
