"""The `loss-balance` command."""

from __future__ import annotations

import signal
import sys
import traceback
from importlib import import_module
from typing import Annotated, Any

from loss_balance.extras import require

require("experiments", "the loss-balance command")

import typer
from typer.core import TyperGroup

import loss_balance
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs import processes
from loss_balance.experiments.terminal import accept_any_name, complaints, console

COMMANDS = {  # and what --help says of them, the first line of each
    "compare": "Train one network with several weight schemes and show each exit against OPT.",
    "train": "Train one network with one weight scheme.",
    "evaluate": "Evaluate a trained run in any framework, beside what it recorded itself.",
    "predict": "Answer for one image by a deadline: the class, its exit, and the time.",
    "export": "Write a trained run as ONNX, torch.export, SavedModel or jax.export, and check it.",
    "serve": "Answer over HTTP: images in, each answer by its request's deadline.",
    "eann": "Combine networks of growing cost into an anytime ensemble (EANN), and measure it.",
    "report": "Merge finished runs of any command into one self-contained HTML page.",
    "runs": "List finished runs, all or some of them.",
    "data": "Look at a data set before it is trained on.",
    "verify": "Check that every installed framework gives the weights of an independent oracle.",
    "models": "List the networks with their exits, parameters and multiply-adds.",
    "paper": "Redo a figure or table of the paper, from digits to the paper's own setting.",
}
BAD_INPUT, BUG, INTERRUPTED = 2, 70, 130  # exit statuses; 1 is a command's verdict


class Commands(TyperGroup):
    """Imports a command when it is called: --help needs none of what they need."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and _command(name), rest


def _command(name: str | None) -> Any:
    """The command itself, for which `app` has but the name."""
    module = import_module(f"loss_balance.experiments.commands.{name}")
    if hasattr(module, "app"):
        return typer.main.get_command(module.app)
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name)(getattr(module, str(name)))
    return typer.main.get_command(alone)


app: typer.Typer = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Balance the losses of anytime networks, and measure what it buys.",
)
for _name, _summary in COMMANDS.items():
    app.command(_name, help=_summary)(lambda: None)


def main() -> None:
    """Runs the command, and ends with an exit status and, where something was wrong, one line.

    0 is well, 1 a verdict (`evaluate` and `verify` disagree), 2 what the user can mend, 130 Ctrl-C
    or SIGTERM, and 70 a bug of ours, with its traceback.
    """
    accept_any_name()
    console.quiet = processes.rank() > 0  # the first of several processes speaks for all
    try:
        signal.signal(signal.SIGTERM, _interrupt)  # how SLURM and others end a job
        status = app(standalone_mode=False)
    except (UserError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        _end(BAD_INPUT, message)
    except BrokenPipeError:  # whoever read us has had enough
        sys.stderr.close()
        sys.exit(BAD_INPUT)
    except OSError as error:
        _end(BAD_INPUT, f"the system refused: {error}")
    except (MemoryError, RecursionError) as error:
        _end(BAD_INPUT, f"this machine must be able to hold what was asked for, it cannot: {error}")
    except KeyboardInterrupt:
        _end(INTERRUPTED, "interrupted")
    except Exception as error:  # the last line of defence
        traceback.print_exc()
        _end(BUG, f"a bug of this package, please report it: {type(error).__name__}: {error}")
    sys.exit(status or 0)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _end(status: int, message: str) -> None:
    if message:
        complaints.say(f"loss-balance: {' '.join(message.splitlines())}")
    sys.exit(status)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"loss-balance {loss_balance.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Balance the losses of anytime networks, and measure what it buys."""


if __name__ == "__main__":
    main()
