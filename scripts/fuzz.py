#!/usr/bin/env python
"""Hostile input of every kind, and how each command ends: ``python scripts/fuzz.py --cases 3000 --seed 1``.

The cases with a name come first, then as many seeded ones as are wanted in all. Exit code 1 where one of them
ends in anything but success or one clear line (``tests/fuzz/judge.py`` says what is looked at).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.fuzz.cases import named, seeded, warm_up
from tests.fuzz.judge import Outcome, judge, progress
from tests.fuzz.valid import write_valid


def main() -> int:
    """Run the cases and print the findings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases", type=int, default=3000, help="so many, or all with a name if these are more"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="*", default=[], help="run these kinds only")
    parser.add_argument("--only", help="run the one case KIND/NAME, or all whose name holds this")
    parser.add_argument("--sample", type=int, help="of the named cases take so many, chosen by the seed")
    parser.add_argument("--json", type=Path, help="write every outcome to this file")
    chosen = parser.parse_args()
    cases = [case for case in named() if not chosen.kinds or case.kind in chosen.kinds]
    if chosen.sample is not None:
        cases = random.Random(chosen.seed).sample(cases, min(chosen.sample, len(cases)))
    cases += seeded(chosen.seed, chosen.cases - len(cases), chosen.kinds)
    if chosen.only:
        cases = [case for case in cases if chosen.only in f"{case.kind}/{case.name}"]
    run = warm_up()
    outcomes: list[Outcome] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        root = Path(folder).resolve() / "root"
        root.mkdir()
        _in_child(lambda: write_valid(root))
        for number, case in enumerate(cases, 1):
            outcome = judge(case, root / "valid", root, run)
            outcomes.append(outcome)
            if outcome.faults:
                words = shlex.join(word[:60] for word in outcome.argv)
                print(f"{outcome.case}: {'; '.join(outcome.faults)}\n    {words}", flush=True)
            if number % 200 == 0:
                print(progress(outcomes, started), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    kinds = Counter(outcome.case.partition("/")[0] for outcome in outcomes)
    refused = sum(outcome.code != 0 for outcome in outcomes)
    print(", ".join(f"{count} {kind}" for kind, count in kinds.items()))
    slowest, largest = max(outcomes, key=lambda o: o.seconds), max(outcomes, key=lambda o: o.peak)
    print(
        f"slowest {slowest.seconds:.1f} s ({slowest.case}), "
        f"largest {largest.peak / 2**20:.0f} MB ({largest.case})"
    )
    print(f"{refused} refused; {progress(outcomes, started)}")
    return any(outcome.faults for outcome in outcomes)


def _in_child(work) -> None:
    """So that the parent computes nothing."""
    if not (child := os.fork()):
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            work()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0, "the valid files cannot be made"


if __name__ == "__main__":
    sys.exit(main())
