"""How a command ends: one line for what a user can mend, a traceback for what is a fault of ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from sam_spl.errors import UserError


def run(command: Callable[[list[str]], None], argv: list[str] | None = None) -> NoReturn:
    """Run ``command`` on the arguments and exit: 0, 1 (data, files, devices), 2 (usage), 130 (Ctrl-C)."""
    try:
        command(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"error: {message(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt as error:
        print(f"\ninterrupted{f': {error}' if str(error) else '.'}", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def message(error: UserError) -> str:
    """What the error says, without the traceback that a loader process wraps around it."""
    text = str(error)
    if "Original Traceback" in text:
        return text.rsplit(f"{type(error).__name__}: ", 1)[-1].strip()
    return text
