"""Files that appear whole or not at all, and folders that one process writes at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sam_spl.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_UMASK = os.umask(0o022)  # which can be read by setting it only
os.umask(_UMASK)


@contextmanager
def atomic(path: str | Path, *, durable: bool = False, keep: str | None = None) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` that replaces it when the block succeeds.

    Args:
        path: of the file.
        durable: see that it is on the disk before it replaces the one before, for a machine that loses power.
        keep: name that the file before has from then on; at no moment is there neither.

    Raises:
        InputError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.chmod(temporary, 0o666 & ~_UMASK)  # whatever the library that wrote it chose
        if durable:
            _to_disk(temporary)
        if keep and path.exists():
            _also_named(path, path.with_name(keep))
        os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _also_named(path: Path, name: Path) -> None:
    """Give a file another name as well, or that name instead where the file system has no links."""
    link = name.with_name(f".{name.name}.{os.getpid()}.tmp")
    try:
        os.link(path, link)
        os.replace(link, name)
    except OSError:
        os.replace(path, name)
    finally:
        with suppress(OSError):
            link.unlink(missing_ok=True)


def require_writable(path: str | Path) -> None:
    """See that a file can be written, before the work that its content takes.

    Raises:
        InputError: its folder cannot be written, or its name is a folder's.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(21, os.strerror(21))
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
    return InputError(f"cannot write {path}: {reason}. Choose a folder that can be written, with free space.")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def lock(folder: str | Path) -> Iterator[Callable[[], bool]]:
    """Keep other processes from writing a folder, by a file ``.lock`` in it while the block runs.

    What a process that was killed left half written there is removed. Where the system has no such locks
    (Windows, some network drives), nothing is kept.

    Yields:
        Whether the folder is still there, and no other one in its place.

    Raises:
        InputError: another process has it, or the folder cannot be written.
    """
    folder = Path(folder)
    path, new = folder / ".lock", not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise InputError(
            f"cannot write {folder}: {error.strerror}. Choose a folder that can be written, with free space."
        ) from error
    try:
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise _taken(folder) from None
            if not _is_still(path, descriptor):  # its last owner removed it in between
                raise _taken(folder)
        for torn in folder.glob(".*.tmp"):
            if re.fullmatch(r"\..+\.\d+\.tmp", torn.name):
                torn.unlink(missing_ok=True)
        try:
            yield lambda: _is_still(path, descriptor)
        finally:
            if _is_still(path, descriptor):
                path.unlink(missing_ok=True)
                if new:
                    with suppress(OSError):  # not empty: as it should be
                        folder.rmdir()
    finally:
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _taken(folder: Path) -> InputError:
    return InputError(
        f"{folder}: another process is writing there. Wait until it ends, or choose another folder."
    )
