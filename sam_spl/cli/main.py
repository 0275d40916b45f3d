"""``sam-spl COMMAND ...``: one line for what a user can fix, a traceback for what is a fault of ours."""

from __future__ import annotations

import errno
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from sam_spl import __version__
from sam_spl.cli.command import Command
from sam_spl.cli.grammar import configure, own_folders, parse
from sam_spl.cli.help import help_text, overview
from sam_spl.config import add_config_folder
from sam_spl.errors import ConfigError, InputError, Stopped, UserError, message, nearest

#: The commands, each a module of this folder.
NAMES = (
    "train",
    "test",
    "predict",
    "demo",
    "visualize",
    "score",
    "compare",
    "bench",
    "check",
    "prepare",
    "convert",
    "calibrate",
    "adapt",
    "export",
    "profile",
    "download",
)

#: What errors say that another process of the run has caused.
_OF_OTHERS = (
    "gloo/transport",
    "gloo::",
    "Connection closed by peer",
    "ncclRemoteError",
    "NCCL communicator was aborted",
)
#: What the system says of names and rights, which Python raises where a path is merely looked at.
_REFUSALS = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
_PATIENCE = 5.0  # seconds that a process waits before it says what another one may say as well


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The console command."""
    run(list(sys.argv[1:] if argv is None else argv))


def further_commands() -> dict[str, str]:
    """How to start training and testing the way that this program was started, for its messages."""
    if Path(sys.argv[0]).name in ("training.py", "testing.py"):
        return {"train": "python training.py", "test": "python testing.py"}
    return {"train": "sam-spl train", "test": "sam-spl test"}


def run(argv: list[str]) -> NoReturn:
    """Run a command line and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    finish(lambda: execute(argv))


def finish(work: Callable[[], object]) -> NoReturn:
    """Do something and exit: 0, 1 (data, files, devices), 2 (usage), 75 (a signal ended a run that can be
    resumed), 130 (Ctrl-C).

    Of several processes that fail alike one says why: torchrun ends the others when the first of them exits.
    """
    try:
        work()
    except UserError as error:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(_PATIENCE)
        print(f"error: {message(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except RuntimeError as error:
        if "RANK" not in os.environ or not any(one in str(error) for one in _OF_OTHERS):
            raise
        time.sleep(2 * _PATIENCE)  # the process that this one was connected to speaks first
        print("error: another process of this run has ended", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"\ninterrupted{f': {error}' if str(error) else '.'}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, Stopped) else 130)
    sys.exit(0)


def execute(argv: Sequence[str]) -> Any:
    """Run a command line in this process; what the command returns.

    Raises:
        UserError: something that the user can fix.
    """
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview({name: command(name) for name in NAMES}))
        return None
    if name == "--version":
        print(f"sam-spl {__version__}")
        return None
    try:
        return _execute(name, rest)
    except OSError as error:
        if error.errno not in _REFUSALS or error.filename is None:
            raise
        where = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
        raise InputError(f"{where}: {error.strerror}. Name a file or a folder that you can use.") from error


def _execute(name: str, rest: list[str]) -> Any:
    chosen = command(name)
    folders, rest = own_folders(rest)
    for folder in folders:
        add_config_folder(folder)
    line = parse(rest, chosen)
    if "help" in line.options:
        print(help_text(chosen))
        return None
    return chosen.run(line if chosen.groups else configure(line, chosen))


def command(name: str) -> Command:
    """What a command declares.

    Raises:
        ConfigError: no such command.
    """
    if name not in NAMES:
        raise ConfigError(
            f"{name!r} is not a command. Nearest: {nearest(name, NAMES)}. sam-spl --help lists all."
        )
    found = import_module(f"sam_spl.cli.{name}").COMMAND
    assert isinstance(found, Command)
    return found
