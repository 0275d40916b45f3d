"""Errors that a user can cause and fix. Anything else that is raised is a bug of the toolkit."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_FEW = 10  # names that a message may list
_LONGEST, _ENDING = 480, 180  # characters of a message, and of its end, where the remedy is


class UserError(ValueError):
    """One message that says what is wrong, where, and how to fix it."""

    exit_code = 1


class InputError(UserError):
    """Data, files or devices are not what they should be; commands end with exit code 1."""


class NotFiniteError(InputError):
    """A network's answer to an image is infinite or not a number."""


class ConfigError(UserError):
    """A flag, key or value is not valid; commands end with exit code 2."""

    exit_code = 2


class Stopped(KeyboardInterrupt):
    """A signal has ended a run, which can be resumed; commands end with exit code 75.

    That is EX_TEMPFAIL of ``sysexits.h``: nothing is wrong, start it again.
    """

    exit_code = 75


def nearest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """The valid names closest to ``name``, for an error message; where none is close, all of a few names."""
    known = sorted(known)
    lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), list(lower), n=limit, cutoff=0.5)
    top = [candidate for candidate in known if "." not in candidate] or known
    if not close and len(top) <= _FEW:
        return ", ".join(top)
    close = close or difflib.get_close_matches(name.lower(), list(lower), n=limit, cutoff=0.0)
    return ", ".join(lower[candidate] for candidate in close)


def plain(name: str) -> str:
    """Letters and digits only, in lower case: equal for the spellings that people use for one name."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def message(error: BaseException) -> str:
    """What the error says, in one line, without the traceback that a loader process wraps around it.

    Names and values that it quotes may hold anything: line feeds, a terminal's escapes, millions of letters.
    """
    text = str(error)
    if "Original Traceback" in text:
        text = text.rsplit(f"{type(error).__name__}: ", 1)[-1]
    text = " ".join(text.split())
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - _ENDING]} [...] {text[-_ENDING:]}"
    return "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in text)
