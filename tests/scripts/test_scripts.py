from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from sam_spl.errors import InputError
from sam_spl.models.registry import build_model
from sam_spl.models.sam_spl_published import SAM_SPL
from sam_spl.weights.formats import read_weights
from sam_spl.weights.published import to_published
from tests.conftest import ROOT, golden_state


def _script(name: str) -> ModuleType:
    spec = util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_conversion_round_trip_is_bit_exact(tmp_path, capsys):
    published = golden_state("t")
    torch.save({"model_state_dict": published}, tmp_path / "a.pth")
    convert = _script("convert_weights").convert
    convert([str(tmp_path / "a.pth"), str(tmp_path / "b.safetensors"), "--mean", "0.4228", "--std", "0.1295"])
    convert([str(tmp_path / "b.safetensors"), str(tmp_path / "c.pth")])
    back = torch.load(tmp_path / "c.pth", weights_only=True)
    assert back.keys() == published.keys()
    assert all(torch.equal(back[name], published[name]) for name in back)
    assert f"sam_spl_t, {len(published)} tensors, ours names" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "mean", "size"),
    [
        (["--dataset", "NUDT-SIRST"], [0.422781] * 3, 256),
        (["--dataset", "IRSTD-1k", "--image_size", "480"], [0.28450727] * 3, 480),
        (["--mean", "0.4", "--std", "0.2"], [0.4], 256),
        ([], [0.485, 0.456, 0.406], 256),
    ],
)
def test_a_converted_file_states_the_input_of_the_set_or_of_the_options(
    tmp_path, caplog, options, mean, size
):
    torch.save(golden_state("t"), tmp_path / "a.pth")
    _script("convert_weights").convert([str(tmp_path / "a.pth"), str(tmp_path / "b.pt"), *options])
    description = read_weights(tmp_path / "b.pt").description
    assert (description["mean"], description["image_size"], description["resize"]) == (mean, size, "pillow")
    assert "does not state its network's input" in caplog.messages[0]


@pytest.mark.parametrize("options", [["--mean", "0.4"], ["--image_size", "0"], ["--std", "0", "--mean", "0"]])
def test_options_that_no_network_can_have_are_refused(tmp_path, options):
    torch.save(golden_state("t"), tmp_path / "a.pth")
    with pytest.raises(InputError, match="malformed"):
        _script("convert_weights").convert([str(tmp_path / "a.pth"), str(tmp_path / "b.pt"), *options])
    assert not (tmp_path / "b.pt").exists()


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


def _fetch(server: str, folder: Path, name: str = "tiny") -> None:
    _script("download_sam2").download([name, "--folder", str(folder), "--source", server])


def test_a_broken_download_is_gone_on_from_and_checked(server, tmp_path, capsys):
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
