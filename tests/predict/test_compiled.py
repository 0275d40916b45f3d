"""Compiled packages: the network's answers, kept once, never taken from where others can write."""

from __future__ import annotations

import pytest
import torch

from sam_spl import build_model
from sam_spl.errors import InputError
from sam_spl.predict import compiled as room
from sam_spl.predict.compiled import WORTH, Compiled, compiled
from sam_spl.runtime import World, cpp_compiler
from tests.conftest import TINY

SHAPE = (1, 3, 64, 64)
CPU = World(0, 1, torch.device("cpu"))
needs_compiler = pytest.mark.skipif(not cpp_compiler(), reason="no C++ compiler")


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = build_model("sam_spl_t", **TINY, use_sam_decoder=False, mutual_calibration=False).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # so that folding it matters
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAM_SPL_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def fast(cache):
    return compiled(network(), SHAPE, CPU, wanted="true")


@pytest.mark.slow
@needs_compiler
def test_answers_are_those_of_the_network(fast):
    image = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    other = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(fast(image)[0], network()(image)[0], rtol=0, atol=1e-4)
        # Not compiled for:
        torch.testing.assert_close(fast(other)[0], network()(other)[0], rtol=0, atol=1e-5)
    assert network()(image)[0].abs().max() > 1e-2


@pytest.mark.slow
@needs_compiler
def test_a_package_is_kept_for_its_weights_alone(fast, cache, monkeypatch):
    (package,) = (cache / "compiled").glob("*.pt2")
    made = package.stat().st_ino
    assert isinstance(compiled(network(), SHAPE, CPU, images=1), Compiled)  # auto takes what is there
    assert package.stat().st_ino == made
    assert [file.name for file in (cache / "compiled").iterdir()] == [package.name]

    monkeypatch.setattr(room, "cpp_compiler", lambda: None)  # the machine has none: nothing can be made
    for model, shape in ((network(1), SHAPE), (network(), (2, *SHAPE[1:]))):
        assert compiled(model, shape, CPU, images=10 * WORTH) is model
        with pytest.raises(InputError, match=r"no C\+\+ compiler"):
            compiled(model, shape, CPU, wanted="true")
    half = network()
    half.window_spec = (4, 2, 2)
    half.built_from["arguments"]["window_spec"] = [4, 2, 2]  # which no tensor shows
    assert compiled(half, SHAPE, CPU) is half


@pytest.mark.slow
@needs_compiler
def test_a_package_that_others_can_write_is_not_run(fast, cache):
    (package,) = (cache / "compiled").glob("*.pt2")
    for path in (package, package.parent):
        mode = path.stat().st_mode
        path.chmod(mode | 0o002)
        with pytest.raises(InputError, match="others can write"):
            compiled(network(), SHAPE, CPU)
        path.chmod(mode)
    assert isinstance(compiled(network(), SHAPE, CPU), Compiled)


def test_nothing_is_compiled_unasked(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM_SPL_CACHE", str(tmp_path))
    model, small = network(), build_model("datransnet").eval()
    assert compiled(model, SHAPE, CPU, images=WORTH - 1) is model
    assert compiled(model, SHAPE, CPU, wanted="false", images=10 * WORTH) is model
    assert compiled(small, (1, 1, 64, 64), CPU, images=10 * WORTH) is small  # gains nothing
    assert not list(tmp_path.iterdir())
