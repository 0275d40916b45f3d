"""Run hostile command lines, each in a forked child under limits, and judge how they end.

A case passes that ends in success or in one clear line: no traceback, no more than 10 s or 2 GB, no code
from a file, no file outside the output folder, nothing unpickled, no network. What ``import`` loads is loaded
once, in the parent, which itself computes nothing: libraries whose threads run cannot be forked.
"""

from __future__ import annotations

import os
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 10.0  # of processor time: what a shared machine makes a case wait for is not the case's
WAITING = 30.0  # seconds in all, after which a case counts as hanging
BYTES = 2 * 2**30  # of memory that is resident
_OURS = 2**30  # at most, of the process that starts the cases; more is of tests that ran in it before
_GUARD = 4 * 2**30  # of addresses beyond the parent's, so that no case takes the machine down
_PRINTED = 64 * 2**10  # bytes of output
_LONGEST = 500  # characters of a message, beside the paths in it
_LINE = re.compile(r"^(?:error|skipped): (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Attributes:
        kind: of input.
        name: unique in its kind.
        make: writes its files into a folder, which it is given beside that of valid files; gives the command
            line. It is run in ``out`` of that folder, the only one where files may appear.
        about: a refusal names one of these: the file, or the key.
    """

    kind: str
    name: str
    make: Callable[[Path, Path], list[str]]
    about: tuple[str, ...] = ()


@dataclass
class Outcome:
    """How a case ended.

    Attributes:
        case: its kind and name.
        faults: what must not happen and did, none where the case passes.
        code: exit code; negative: the signal.
        seconds: of processor time.
        peak: bytes that were resident.
        said: the end of what it printed.
        argv: the command line.
    """

    case: str
    faults: list[str] = field(default_factory=list)
    code: int = 0
    seconds: float = 0.0
    peak: int = 0
    said: str = ""
    argv: list[str] = field(default_factory=list)


def judge(case: Case, valid: Path, root: Path, run: Callable[[list[str]], None]) -> Outcome:
    """Run one case below ``root`` and judge it.

    Args:
        case: the case.
        valid: folder of valid files; it may not change.
        root: folder that is watched, which holds ``valid`` and ``canary.py``.
        run: runs a command line and exits.
    """
    folder = root / "cases" / "some" / "where" / "case"
    shutil.rmtree(folder, ignore_errors=True)
    out, log = folder / "out", root.parent / "said.txt"
    out.mkdir(parents=True)
    (folder / "tmp").mkdir()
    outcome = Outcome(f"{case.kind}/{case.name}")
    outcome.argv = case.make(folder, valid)
    before = _tree(root, out)
    inherited = max(0, _pages(1) - _OURS)
    status, usage, hung = _watched(lambda: run(outcome.argv), out, folder / "tmp", log)
    outcome.code = os.waitstatus_to_exitcode(status)
    outcome.seconds, outcome.peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 - inherited
    size = log.stat().st_size
    with log.open("rb") as stream:
        stream.seek(max(0, size - _PRINTED))
        text = stream.read().decode("utf-8", "backslashreplace")
    outcome.said = text[-2000:]
    outcome.faults = _faults(case, outcome, text, size, hung=hung)
    outcome.faults += _changes(before, _tree(root, out))
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _faults(case: Case, outcome: Outcome, text: str, size: int, *, hung: bool) -> list[str]:
    faults = [line.partition("FUZZ ")[2] for line in text.splitlines() if line.startswith("FUZZ ")]
    if hung or outcome.code == -signal.SIGXCPU or outcome.seconds > SECONDS:
        faults.append(f"slow: {'hangs' if hung else f'{outcome.seconds:.1f} s'}")
    elif outcome.code < 0:
        faults.append(f"killed by signal {-outcome.code}")
    if outcome.peak > BYTES:
        faults.append(f"memory: {outcome.peak / 2**30:.1f} GB")
    if size > _PRINTED:
        faults.append(f"prints {size} bytes")
    if "Traceback (most recent call last)" in text:
        faults.append("traceback: " + text.rstrip().rpartition("\n")[2][:300])
    elif outcome.code > 2:
        faults.append(f"exit code {outcome.code}")
    if outcome.code in (1, 2) and not faults:
        faults += _of_message(case, text)
    return faults


def _of_message(case: Case, text: str) -> list[str]:
    """What is wrong with a refusal."""
    last = text.rstrip().rpartition("\n")[2].rpartition("\r")[2]
    lines = _LINE.findall(text)
    if not last.startswith("error: "):
        return [f"message: the last line is no error line: {last[:200]!r}"]
    faults = []
    if sum(line.startswith("error: ") for line in text.splitlines()) > 1:
        faults.append("message: several error lines")
    words = " ".join(lines)
    if case.about and not any(word in words for word in case.about):
        faults.append(f"message: names none of {case.about}: {last[:200]!r}")
    if len(re.sub(r"(/[^\s/:,()]+)+", "", last)) > _LONGEST:
        faults.append(f"message: of {len(last)} characters")
    if not last.isprintable():
        faults.append(f"message: holds what is not printable: {last[:200]!r}")
    return faults


def _watched(work: Callable[[], None], out: Path, tmp: Path, log: Path) -> tuple[int, Any, bool]:
    """Run in a child: its status, what it used, and whether it had to be ended."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            _enter(out, tmp, log)
            work()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    handle = os.pidfd_open(child)
    hung = not select.select([handle], [], [], WAITING)[0]
    os.close(handle)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # it, and what it may have started
    _, status, usage = os.wait4(child, 0)
    return status, usage, hung


def _enter(out: Path, tmp: Path, log: Path) -> None:
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdout, sys.stderr = open(1, "w"), open(2, "w", errors="backslashreplace")  # noqa: SIM115
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(out)
    os.environ |= {"TMPDIR": str(tmp), "HOME": str(tmp)}
    sys.dont_write_bytecode, tempfile.tempdir = True, str(tmp)
    limits = {resource.RLIMIT_CPU: int(SECONDS) + 2, resource.RLIMIT_AS: _pages(0) + _GUARD}
    for which, limit in (limits | {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: BYTES}).items():
        resource.setrlimit(which, (limit, limit))
    sys.addaudithook(
        _hook((str(out) + "/", str(tmp) + "/", "/dev/null", "/dev/shm/", "/proc/self/"), str(out))
    )


def _pages(which: int) -> int:
    """Bytes of this process: 0 of its addresses, 1 resident."""
    return int(Path("/proc/self/statm").read_text().split()[which]) * resource.getpagesize()


def _hook(allowed: tuple[str, ...], at: str) -> Callable[[str, tuple[Any, ...]], None]:
    """Tell of files opened for writing elsewhere, of programs started, of pickles, of the network."""

    def tell(what: str) -> None:
        os.write(2, f"\nFUZZ {what[:300]}\n".encode(errors="backslashreplace"))

    def inside(path: Any) -> bool:
        if isinstance(path, int):
            return True
        full = os.path.normpath(os.path.join(at, os.fsdecode(path)))
        return f"{full}/".startswith(allowed) or full.startswith(allowed)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) and not inside(path):
                tell(f"outside: writes {path!r}")
        elif event in ("os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"):
            if not inside(arguments[0]):
                tell(f"outside: {event} {arguments[0]!r}")
        elif event in ("os.rename", "os.link", "os.symlink"):
            if not inside(arguments[1]):
                tell(f"outside: {event} {arguments[:2]!r}")
        elif event in ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen"):
            tell(f"code: {event} {arguments!r}")
        elif event == "pickle.find_class":
            tell(f"code: unpickles {arguments!r}")
        elif event == "socket.connect":
            tell(f"network: {arguments[1]!r}")

    return hook


def _tree(root: Path, out: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below ``root`` but not below ``out``: size and time of change."""
    found, folders = {}, [str(root)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                is_folder = entry.is_dir(follow_symlinks=False)
                found[entry.path] = (0, 0) if is_folder else (status.st_size, status.st_mtime_ns)
                if is_folder and entry.path != str(out):
                    folders.append(entry.path)
    return found


def _changes(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    changed = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    if any(Path(path).name == "CANARY" for path in changed):
        return ["code: the canary sang, code was run from a file"]
    return [f"outside: {', '.join(sorted(changed)[:3])}"] if changed else []


def progress(outcomes: list[Outcome], started: float) -> str:
    """One line."""
    bad = sum(bool(outcome.faults) for outcome in outcomes)
    return f"{len(outcomes)} cases, {bad} with a finding, {time.monotonic() - started:.0f} s"
