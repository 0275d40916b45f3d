"""SAM 2.1 checkpoints from the network: resumed after a break, checked tensor by tensor at the end."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from tqdm import tqdm

from sam_spl.config import config_folder, group_files
from sam_spl.errors import InputError
from sam_spl.models.registry import build_model, model_file
from sam_spl.weights.formats import sha256
from sam_spl.weights.sam2 import load_trunk

_CHUNK = 1 << 20


def trunk_files() -> dict[str, str]:
    """SAM 2.1's checkpoints (``tiny``, ``small``, ...) and the network whose trunk each holds."""
    return {
        file.removeprefix("sam2.1_hiera_").removesuffix(".pt"): name
        for name, path in group_files("model").items()
        if path.is_relative_to(config_folder()) and (file := model_file(name).get("trunk_file"))
    }


def fetch(url: str, file: Path) -> None:
    """Fetch ``url`` into ``file``, unless it is there; an earlier attempt's ``<file>.part`` is continued.

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
            if error.code != 416:  # the server has nothing after what is there: the file is complete
                raise
            os.replace(part, file)
            return
        with answer:
            resumed = answer.status == 206  # a server may ignore the range and send all of it
            have = have if resumed else 0
            total = int(answer.headers.get("Content-Length", 0)) + have
            bar = tqdm(total=total or None, initial=have, unit="B", unit_scale=True, desc=file.name)
            with part.open("ab" if resumed else "wb") as stream, bar:
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
            f"{url} cannot be fetched ({error}). Check the network and run this again: it resumes where it "
            f"stopped. Or fetch the file on another machine and copy it to {file}"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot write {part}: {error.strerror or error}. Choose another --folder."
        ) from error


def check(file: Path, name: str, digest: str | None = None) -> str:
    """Check every tensor's CRC-32, the file's SHA-256 where it is known, and that the trunk fits.

    Args:
        file: the checkpoint.
        name: of the network.
        digest: the SHA-256 that the file needs to have.

    Returns:
        Its SHA-256.

    Raises:
        InputError: damaged, or another file than its name says.
    """
    found = sha256(file)
    if digest is not None and found != digest.lower():
        raise InputError(
            f"{file}: its SHA-256 is {found}, not {digest.lower()}. Delete it and run this again."
        )
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise InputError(f"{file}: {broken} is damaged.")
        load_trunk(build_model(name), str(file))
    except (InputError, OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{file}: not a whole checkpoint ({error}). Delete it and run this again."
        ) from error
    return found
