"""``sam-spl download``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sam_spl.cli.command import Command
from sam_spl.errors import ConfigError

#: Where a file cannot be exchanged on its way: encrypted connections, and this computer.
_TRUSTED = r"https://|http://(127\.0\.0\.1|localhost)[:/]"


@dataclass
class DownloadConfig:
    """Fetch SAM 2.1 checkpoints, whose trunks guide SAM-SPL: resumed after a break, checked at the end.

    On a machine without network, fetch the files elsewhere and copy them into checkpoints/.
    """

    names: list[str] = field(default_factory=list)  # tiny | small | base_plus | large; none: all, 1.5 GB
    folder: str = "./checkpoints"  # where model.trunk_weights=auto finds them
    source: str = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"  # or a mirror's folder
    check: bool = False  # only check the files that are there
    sha256: str | None = None  # of the one file to fetch, from a source you trust: 64 hex digits

    def __post_init__(self) -> None:
        if self.sha256 is not None and len(self.names) != 1:
            raise ConfigError(
                "sha256: belongs to one file. Name that file: sam-spl download tiny --sha256 HEX"
            )
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", self.sha256):
            raise ConfigError(f"sha256: {self.sha256!r} is not valid, give 64 hexadecimal digits.")
        if self.sha256 is None and not re.match(_TRUSTED, self.source):
            raise ConfigError(
                f"source: {self.source!r} is not valid, give an https:// address, or --sha256 of the file."
            )


def download(config: DownloadConfig) -> None:
    """Fetch and check, and print a line for each file."""
    from pathlib import Path

    from sam_spl.errors import nearest
    from sam_spl.models.registry import model_file
    from sam_spl.weights.download import check, fetch, trunk_files

    variants = trunk_files()
    for name in config.names:
        if name not in variants:
            raise ConfigError(f"names: {name!r} is unknown. Nearest: {nearest(name, variants)}")
    for name in config.names or variants:
        file = Path(config.folder).expanduser() / model_file(variants[name])["trunk_file"]
        if not config.check:
            fetch(f"{config.source.rstrip('/')}/{file.name}", file)
        if file.exists():
            digest = check(file, variants[name], config.sha256)
            print(f"{file}: complete, its trunk fits {variants[name]}, SHA-256 {digest}")
        else:
            print(f"{file}: not there")


COMMAND = Command(
    name="download",
    config=DownloadConfig,
    run=download,
    positional=("names",),
    examples=("sam-spl download", "sam-spl download tiny small", "sam-spl download --check"),
)
