"""Files that come from anywhere: nothing is taken for granted of them, and little of them is quoted."""

from __future__ import annotations

import codecs
import json
import os
import stat
from pathlib import Path
from typing import Any

from sam_spl.errors import InputError

_MOST_TEXT = 512 * 2**20  # bytes
#: The longer ones first: UTF-32's mark begins as UTF-16's does.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def require_regular(path: str | Path) -> os.stat_result:
    """What the system says of a file of data; reading a pipe or a device might never end.

    Raises:
        OSError: it cannot be found, or is something else.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise OSError(None, f"it is {kind}")
    return status


def read_text(path: str | Path, what: str) -> str:
    """A text file in UTF-8, or in UTF-16 or UTF-32 if a byte order mark says so.

    Args:
        path: the file.
        what: what it is, for messages, as "dataset: the list".

    Raises:
        InputError: it cannot be read, or is no such text.
    """
    try:
        size = require_regular(path).st_size
        if size > _MOST_TEXT:
            raise OSError(None, f"{size} bytes are too many")
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror or error}.") from error
    mark, coding = next((one for one in _MARKS if data.startswith(one[0])), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(coding)
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} is not UTF-8 text ({error}). Save it as UTF-8.") from error
    if "\0" in text:
        raise InputError(f"{what} {path} is not UTF-8 text (it holds zeros). Save it as UTF-8.")
    return text


def read_json(path: str | Path, what: str = "") -> Any:
    """The values in a JSON file.

    Raises:
        InputError: it cannot be read, or is no JSON.
    """
    text = read_text(path, what or "the file")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # brackets in brackets by the thousand
        raise InputError(
            f"{what} {path} is not a JSON file ({brief(error, quoted=False)}).".lstrip()
        ) from error


def brief(value: object, most: int = 60, *, quoted: bool = True) -> str:
    """A value in one short line, for messages: files may hold line feeds, escapes and millions of letters."""
    if isinstance(value, str) and len(value) > 4 * most:
        value = value[: 4 * most]
    text = repr(value) if quoted else str(value)
    text = " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
    text = "".join(mark if mark.isprintable() else "?" for mark in text)
    return text if len(text) <= most else f"{text[: most - 3]}..."
