"""``sam-spl download`` from a server that understands ranges."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch

from sam_spl.cli.download import DownloadConfig, download
from sam_spl.errors import ConfigError, InputError
from sam_spl.models.registry import build_model
from sam_spl.models.sam_spl_published import SAM_SPL
from sam_spl.weights.formats import sha256
from sam_spl.weights.published import to_published


@pytest.fixture
def server(tmp_path) -> Iterator[tuple[str, list[str]]]:
    """A server of one SAM 2 checkpoint that understands ranges, and the ranges it was asked for."""
    trunk = build_model("sam_spl_t").encoder.trunk.state_dict()
    trunk = to_published({f"encoder.trunk.{name}": value for name, value in trunk.items()}, SAM_SPL)
    torch.save({"model": trunk}, tmp_path / "sam2.pt")
    content = (tmp_path / "sam2.pt").read_bytes()
    ranges: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            ranges.append(asked)
            if "tiny" not in self.path:
                self.send_error(404)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start:])

        def log_message(self, *args) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}", ranges
    http.shutdown()


def _fetch(server: str, folder: Path, name: str = "tiny", **options) -> None:
    download(DownloadConfig([name], folder=str(folder), source=server, **options))


def test_a_broken_download_is_resumed_and_checked(server, tmp_path, capsys):
    url, ranges = server
    whole = (tmp_path / "sam2.pt").read_bytes()
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "sam2.1_hiera_tiny.pt.part").write_bytes(whole[:1000])
    _fetch(url, tmp_path / "ckpt")
    assert ranges == ["bytes=1000-"]
    assert (tmp_path / "ckpt" / "sam2.1_hiera_tiny.pt").read_bytes() == whole
    assert "its trunk fits sam_spl_t" in capsys.readouterr().out
    _fetch(url, tmp_path / "ckpt")  # again: nothing to fetch
    assert len(ranges) == 1


def test_a_damaged_file_is_found_by_its_checksums(server, tmp_path):
    url, _ = server
    _fetch(url, tmp_path / "ckpt")
    file = tmp_path / "ckpt" / "sam2.1_hiera_tiny.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"not a whole checkpoint .* Delete it"):
        _fetch(url, tmp_path / "ckpt")


@pytest.mark.parametrize(("name", "port", "reason"), [("large", None, "404"), ("tiny", 9, "refused")])
def test_without_the_file_or_the_network_it_says_what_to_do(server, tmp_path, name, port, reason):
    url = f"http://127.0.0.1:{port}" if port else server[0]
    with pytest.raises(InputError, match=f"cannot be fetched .*{reason}.* another machine and copy it to"):
        _fetch(url, tmp_path / "ckpt", name)
    assert not list((tmp_path / "ckpt").glob("*.pt"))


def test_a_digest_that_is_given_is_checked(server, tmp_path, capsys):
    url, _ = server
    digest = sha256(tmp_path / "sam2.pt")
    _fetch(url, tmp_path / "ckpt", sha256=digest.upper())
    assert f"SHA-256 {digest}" in capsys.readouterr().out
    with pytest.raises(InputError, match=rf"its SHA-256 is {digest}, not 0{{64}}\. Delete it"):
        _fetch(url, tmp_path / "ckpt", sha256="0" * 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["tiny", "small"], "sha256": "0" * 64}, "sha256: belongs to one file"),
        ({"sha256": "0" * 64}, "sha256: belongs to one file"),
        ({"names": ["tiny"], "sha256": "abc"}, "give 64 hexadecimal digits"),
        ({"names": ["tinny"]}, "names: 'tinny' is unknown. Nearest: tiny"),
    ],
)
def test_words_that_name_no_file_or_digest_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        download(DownloadConfig(**options, check=True))


def test_checking_fetches_nothing(server, tmp_path, capsys):
    url, ranges = server
    download(DownloadConfig(folder=str(tmp_path / "none"), source=url, check=True))
    assert not ranges
    assert [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines()] == ["not there"] * 4
