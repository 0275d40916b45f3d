#!/usr/bin/env python3
"""Fetch SAM 2.1 checkpoints, whose trunks guide SAM-SPL: with progress, resumed where it broke off, checked at the end.

    python scripts/download_sam2.py                    all four, 1.5 GB
    python scripts/download_sam2.py tiny small         only these
    python scripts/download_sam2.py --check            check the files that are there

Then: python training.py model=sam_spl_t ..., which takes its file from there.

On a machine without network, fetch the files that this lists elsewhere and copy them into checkpoints/.
"""

from __future__ import annotations

import argparse
import os
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tqdm import tqdm

from sam_spl.cli.errors import run
from sam_spl.errors import ConfigError, InputError, nearest
from sam_spl.models.registry import build_model, model_file, model_names
from sam_spl.weights.sam2 import load_trunk

SOURCE = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"
#: Checkpoint (tiny, small, ...) -> the variant whose trunk it holds.
FILES = {
    file.removeprefix("sam2.1_hiera_").removesuffix(".pt"): variant
    for variant in model_names()
    if (file := model_file(variant).get("trunk_file"))
}
_CHUNK = 1 << 20


def download(argv: list[str]) -> None:
    """Fetch as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(FILES)} (default: all)")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / "checkpoints")
    parser.add_argument(
        "--source", default=SOURCE, help="where the files are, for a mirror (default: %(default)s)"
    )
    parser.add_argument("--check", action="store_true", help="only check the files that are there")
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in FILES:
            raise ConfigError(f"{name!r} is unknown. Nearest: {nearest(name, FILES)}")
    for name in options.names or FILES:
        file = options.folder / model_file(FILES[name])["trunk_file"]
        if not options.check:
            fetch(options.source.rstrip("/") + "/" + file.name, file)
        if file.exists() or not options.check:
            check(file, FILES[name])
            print(f"{file}: complete, its trunk fits {FILES[name]}")


def fetch(url: str, file: Path) -> None:
    """Fetch ``url``; what an earlier attempt left in ``<file>.part`` is gone on from.

    Raises:
        InputError: the server cannot be reached or does not have the file, or the folder cannot be written.
    """
    if file.exists():
        return
    part = file.with_name(file.name + ".part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            answer = urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            if error.code != 416:  # nothing after what is there: it is whole
                raise
            os.replace(part, file)
            return
        with answer:
            resumed = answer.status == 206  # a server may ignore the range and send all of it
            total = int(answer.headers.get("Content-Length", 0)) + (have if resumed else 0)
            with (
                part.open("ab" if resumed else "wb") as stream,
                tqdm(
                    total=total or None,
                    initial=have if resumed else 0,
                    unit="B",
                    unit_scale=True,
                    desc=file.name,
                ) as bar,
            ):
                while block := answer.read(_CHUNK):
                    stream.write(block)
                    bar.update(len(block))
        if total and part.stat().st_size != total:
            raise InputError(
                f"{url}: the connection broke at {part.stat().st_size} of {total} bytes. Run this again."
            )
        os.replace(part, file)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise InputError(
            f"{url} cannot be fetched ({error}). Check the network and run this again, which goes on where it broke "
            f"off; or fetch the file on another machine and copy it to {file}"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot write {part}: {error.strerror or error}. Choose another --folder."
        ) from error


def check(file: Path, variant: str) -> None:
    """Check every tensor's CRC-32 and fit the trunk into the variant that the file is for.

    Raises:
        InputError: damaged, or another file than its name says.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise InputError(f"{file}: {broken} is damaged.")
        load_trunk(build_model(variant), str(file))
    except (InputError, OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{file}: not a whole checkpoint ({error}). Delete it and run this again."
        ) from error


if __name__ == "__main__":
    run(download)
