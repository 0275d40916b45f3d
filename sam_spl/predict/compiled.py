"""A network compiled for images of one shape on a CPU, and kept for the next run."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from sam_spl.errors import ConfigError, InputError
from sam_spl.files import atomic
from sam_spl.models import registry
from sam_spl.predict.engines import ExportedNetwork
from sam_spl.runtime import World, cache_folder, cpp_compiler

log = logging.getLogger(__name__)

#: Images that pay for compiling: about a minute, for 28 (bf16) to 50 ms (float32) an image.
WORTH = 2000
_KEPT = 8  # packages, of 50 to 100 MB each


class Compiled(nn.Module):
    """A network whose answers to images of one shape come from a compiled package.

    Images of other shapes, a last smaller batch, go through the network itself.

    Args:
        model: on a CPU, in evaluation mode.
        package: as :func:`_make` writes it.
        shape: (B, C, H, W) of the images it is for.
    """

    def __init__(self, model: nn.Module, package: Path, shape: torch.Size) -> None:
        super().__init__()
        self.model, self.shape = model, shape
        self.run = torch._inductor.aoti_load_package(str(package))

    def forward(self, image: Tensor) -> list[Tensor]:
        if image.shape != self.shape:
            answer: list[Tensor] = self.model(image)
            return answer
        return [self.run(image.contiguous(memory_format=torch.channels_last))]


def compiled(
    model: nn.Module, shape: tuple[int, ...], world: World, *, wanted: str = "auto", images: int = 0
) -> nn.Module:
    """The network, compiled where that is wanted and pays.

    On a CPU: ahead of time, its weights frozen into the code, kept in the user's cache folder under a name
    made of all that it depends on. Elsewhere by ``torch.compile`` when it first runs, never on its own.

    Args:
        model: on the device of ``world``, in evaluation mode.
        shape: (B, C, H, W) of the images that it will see.
        world: device and precision.
        wanted: ``true``, ``false``, or ``auto``: where the network says that it gains
            (``gains_by_compiling``), and a package is kept or :data:`WORTH` images are to come.
        images: how many are to come.

    Raises:
        ConfigError: it is wanted of an exported file.
        InputError: it is wanted, and this machine cannot (no C++ compiler), or the compiled network answers
            otherwise; or others can write where packages are kept.
    """
    if wanted == "false" or (wanted == "auto" and not getattr(model, "gains_by_compiling", False)):
        return model
    if isinstance(model, ExportedNetwork):
        raise ConfigError("compile: the engine of an exported file compiles it. Leave compile=true out.")
    if world.device.type != "cpu":
        return torch.compile(model, dynamic=False) if wanted == "true" else model  # type: ignore[return-value]
    package = cache_folder() / "compiled" / f"{_name(model, shape, world)}.pt2"
    if wanted == "auto" and not package.exists() and (images < WORTH or not cpp_compiler()):
        return model
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    image = image.contiguous(memory_format=torch.channels_last)
    if not package.exists():
        if not cpp_compiler():
            raise InputError(
                "compile: no C++ compiler (g++ or clang++) is there. Install one, or leave compile=true out."
            )
        _make(model, image, world, package)
    _check_owner(package)
    package.touch()  # the ones used last are kept
    return Compiled(model, package, image.shape)


def _make(model: nn.Module, image: Tensor, world: World, package: Path) -> None:
    """Compile, compare, and keep: the package appears whole or not at all."""
    log.info(
        "compiling the network for images of %s, about a minute; kept in %s",
        "x".join(map(str, image.shape)),
        package.parent,
    )
    started = time.perf_counter()
    package.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with atomic(package) as temporary, torch.no_grad():
        made = temporary.with_suffix(".pt2")  # PyTorch insists on its suffix
        try:
            with world.autocast(), _quiet():
                exported = torch.export.export(_Finest(model), (image,))
                torch._inductor.aoti_compile_and_package(
                    exported, package_path=str(made), inductor_configs={"freezing": True}
                )
            _compare(model, Compiled(model, made, image.shape), image, world)
            made.replace(temporary)
        finally:
            made.unlink(missing_ok=True)
    log.info("compiled in %.0f s", time.perf_counter() - started)
    packages = sorted(package.parent.glob("*.pt2"), key=lambda file: file.stat().st_mtime)
    for old in packages[:-_KEPT]:
        old.unlink(missing_ok=True)


def _compare(model: nn.Module, fast: nn.Module, image: Tensor, world: World) -> None:
    """See that a package is no further from float32 than the network itself, at its precision, may be."""
    exact = model(image)[0].sigmoid()
    with world.autocast():
        own, other = ((net(image)[0].float().sigmoid() - exact).abs().max().item() for net in (model, fast))
    if not other <= 2 * own + 1e-3:  # NaN too
        raise InputError(
            f"compile: compiled, the network's probabilities differ from float32 by {other:.4f}, by itself "
            f"by {own:.4f}. Leave compile=true out."
        )


def _check_owner(package: Path) -> None:
    """A package is code: it has to be the user's own."""
    for path in (package, package.parent):
        status = path.stat()
        others = os.name == "posix" and (status.st_uid != os.getuid() or status.st_mode & 0o022)
        if others:
            raise InputError(
                f"compile: others can write {path}, which holds code. Remove it, or set SAM_SPL_CACHE to a "
                "folder of your own."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch's compiler says of CUDA, which a CPU does not need, and of its own old parts."""
    speaker = logging.getLogger("torch.utils.cpp_extension")
    level = speaker.level
    speaker.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        speaker.setLevel(level)


class _Finest(nn.Module):
    """The finest map alone: what a package answers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        finest: Tensor = self.model(image)[0]
        return finest


def _name(model: nn.Module, shape: tuple[int, ...], world: World) -> str:
    """A name made of all that a package depends on: code, weights, shape, precision, PyTorch, processor."""
    digest = hashlib.sha256()
    files = {Path(inspect.getfile(type(module))) for module in model.modules()}
    files |= set(Path(registry.__file__).parent.glob("*.py"))
    for file in sorted(file for file in files if "torch" not in file.parts):
        digest.update(file.read_bytes())
    built, processor = vars(model).get("built_from", {}), torch.backends.cpu.get_cpu_capability()
    facts = [built, list(shape), world.precision_name, torch.__version__, processor, torch.get_num_threads()]
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
