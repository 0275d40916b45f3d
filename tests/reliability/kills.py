"""Kill training at random moments, go on with it, and compare with a run that was never broken.

    python -m tests.reliability.kills --kills 200 --seed 1

Runs are children that are forked from this process, which has imported everything: they start at once.
Half of the kills come after a random time; the others at a random one of the run's file operations, so that
moments between two files, and before a name appears, are met as often as they matter.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch

from sam_spl.cli.main import run
from sam_spl.weights.formats import read_weights

MODEL = f"model={Path(__file__).with_name('small.py')}:Small"
WORDS = [
    MODEL,
    "recipe=scratch",
    "dataset.image_size=32",
    "dataset.synthetic.train=12",
    "dataset.synthetic.val=2",
    "trainer.batch_size=3",
    "trainer.epochs=3",
    "device=cpu",
    "precision=fp32",
]
#: How runs differ, one after the other.
KINDS = [
    [],
    ["trainer.save_every_steps=1"],
    ["trainer.save_every=2"],
    ["trainer.save_every_steps=3", "num_workers=1"],
]
TIMES = ("seconds", "images_per_second")
_FILE_EVENTS = ("open", "os.rename", "os.link", "os.remove", "os.chmod", "os.mkdir")


def forked(words: list[str], log: Path, before: Callable[[], None] = lambda: None) -> int:
    """Start a command in a child, which leads a group of processes."""
    child = os.fork()
    if child:
        return child
    os.setpgid(0, 0)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        before()
        run(words)
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(int(end.code or 0))
    finally:
        os._exit(70)  # a traceback has been shown


def kill(group: int) -> None:
    """End a child and its loader processes."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def ends(child: int, within: float) -> int | None:
    """How a child ended; None if it runs on."""
    until = time.monotonic() + within
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            kill(child)
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.002)


def kill_at_file(number: int, folder: Path) -> Callable[[], None]:
    """Have a child kill itself at its so-many-th operation on a file of the folder."""

    def begin() -> None:
        count = 0
        lock = threading.Lock()

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event in _FILE_EVENTS and str(folder) in str(arguments[0]):
                with lock:
                    count += 1
                    if count == number:
                        kill(os.getpgid(0))

        sys.addaudithook(hook)

    return begin


def record(folder: Path) -> dict[str, object]:
    """All that has to be equal."""
    last = torch.load(folder / "last.pt", weights_only=True)
    for row in last["history"]:
        for key in TIMES:
            row.pop(key)
    last["within"] = {k: v for k, v in last["within"].items() if k not in ("seconds", "minutes")}
    last.pop("config")  # states the folder
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        for key in TIMES:
            row.pop(key)
    return {
        "last": last,
        "rows": rows,
        "best": read_weights(folder / "best.pt").state,
        "best too": read_weights(folder / "best.safetensors").state,
        "files": sorted(path.name for path in folder.iterdir() if path.name != "last.previous.pt"),
    }


def differs(a: object, b: object, where: str = "") -> list[str]:
    """Where two values are not equal, bit by bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{where}: keys {a.keys() ^ b.keys()}"]
        return [one for key in a for one in differs(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [one for i, (x, y) in pairs for one in differs(x, y, f"{where}/{i}")]
    return [] if a == b else [f"{where}: {a} {b}"]


def import_all(place: Path) -> None:
    """Import what a run imports while it runs, as a child tells it: this process is not to run anything."""
    modules = place / "modules"

    def tell() -> None:
        atexit = os._exit

        def leave(code: int) -> None:
            modules.write_text("\n".join(sys.modules))
            atexit(code)

        os._exit = leave  # type: ignore[assignment]

    code = ends(forked(["train", *WORDS, f"save_dir={place / 'first'}"], place / "first.log", tell), 120)
    assert code == 0, (place / "first.log").read_text()
    for name in modules.read_text().split("\n"):
        with suppress(Exception):
            import_module(name)


def main(kills: int, seed: int, place: Path) -> dict[str, object]:
    """Kill so often; what was found."""
    chance = random.Random(seed)
    import_all(place)
    torch.set_num_threads(1)
    found: list[str] = []
    references: dict[int, tuple[dict[str, object], float]] = {}
    done = {"kills": 0, "finished": 0, "by_file": 0, "found": found}
    while done["kills"] < kills:
        kind = done["finished"] % len(KINDS)
        words = ["train", *WORDS, *KINDS[kind]]
        if kind not in references:
            whole = place / f"whole-{kind}"
            started = time.monotonic()
            code = ends(forked([*words, f"save_dir={whole}"], place / "whole.log"), 120)
            assert code == 0, (place / "whole.log").read_text()
            references[kind] = record(whole), time.monotonic() - started
        reference, seconds = references[kind]
        folder, log = place / f"broken-{done['finished']}", place / f"broken-{done['finished']}.log"
        again = [*words, f"save_dir={folder}", "resume=auto"]
        few = 8  # kills of one run, after which it may end
        for _ in range(few):
            by_file = chance.random() < 0.5
            number = int(chance.expovariate(1 / 25)) + 1
            child = forked(again, log, kill_at_file(number, folder) if by_file else lambda: None)
            code = ends(child, 120 if by_file else chance.uniform(0.02, seconds))
            if code is None:
                kill(child)
                os.waitpid(child, 0)
            elif code == 0:
                break
            elif code != -signal.SIGKILL:
                found.append(f"{folder.name}: exit code {code}")
                break
            done["kills"] += 1
            done["by_file"] += by_file
            time.sleep(0.01)  # the loader processes
            if done["kills"] == kills:
                break
        code = ends(forked(again, log), 120)
        if code != 0:
            found.append(f"{folder.name}: exit code {code} in the end")
        else:
            found += [f"{folder.name}: {one}" for one in differs(reference, record(folder))]
        if "Traceback" in log.read_text():
            found.append(f"{folder.name}: a traceback")
        if found:
            print(log.read_text(), file=sys.stderr)
            break
        shutil.rmtree(folder)
        done["finished"] += 1
    return done


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(main(chosen.kills, chosen.seed, Path(place))))
