"""The documents do not rot: their links, their commands and their code are those of this version."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import sam_spl.config
from sam_spl.cli import compose
from sam_spl.cli.grammar import configure, own_folders, parse
from sam_spl.cli.main import command
from sam_spl.cli.sweep import jobs
from sam_spl.data.transforms import AUGMENTATIONS
from sam_spl.engine.config import TestConfig, TrainConfig
from sam_spl.engine.loggers import LOGGERS
from sam_spl.engine.losses import build_loss
from sam_spl.metrics import protocols_named
from sam_spl.models.registry import build, network_class
from tests.conftest import ROOT

TEXTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "datasets/README.md", ROOT / "checkpoints/README.md"]
)
SCRIPTS = {"training.py": "train", "testing.py": "test"}
each_text = pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(path: Path) -> list[tuple[str, str]]:
    """Language and content of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


def commands(path: Path) -> Iterator[list[str]]:
    """Command and words of every line of a block that calls the toolkit: ``["train", "--dataset", ...]``."""
    for language, content in blocks(path):
        for line in content.replace("\\\n", " ").splitlines() if language in ("", "bash") else ():
            words = re.split(r"\s\[[^=]*\b(?:=|change\])", line)[0]  # "[trainer.epochs=8]": may be left out
            words = [word.replace("HEX", "0" * 64) for word in shlex.split(words, comments=True)]
            if words[:1] == ["torchrun"]:
                at = next(k for k, word in enumerate(words) if word in ("training.py", "sam_spl"))
                words = (
                    ["python", *words[at:]] if words[at] == "training.py" else ["sam-spl", *words[at + 1 :]]
                )
            if words[:1] == ["sam-spl"]:
                yield words[1:]
            elif words[:1] == ["python"] and words[1] in SCRIPTS:
                yield [SCRIPTS[words[1]], *words[2:]]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty folder to work in, without config folders afterwards."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sam_spl.config._own_folders.clear()


def write_files(path: Path, folder: Path) -> None:
    """The files that blocks of a document hold: a comment at the top is their name."""
    for _, content in blocks(path):
        if named := re.match(r"(?:# @package _global_\n)?# ([\w/]+\.(?:py|yaml))\n", content):
            (folder / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / named[1]).write_text(content)


def anchors(path: Path) -> set[str]:
    """The places in a document that a link can name, as GitHub makes them of headings."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.S | re.M), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_text
def test_links_lead_somewhere(text):
    for link in re.findall(r"\]\(([^)\s]+)\)", text.read_text()):
        if not re.match(r"\w+:", link):
            file, _, anchor = link.partition("#")
            target = (text.parent / file).resolve() if file else text
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@each_text
def test_python_blocks_compile(text):
    for language, content in blocks(text):
        if language == "python":
            compile(content, str(text), "exec")


@pytest.mark.parametrize("name", ["README.md", "docs/extending.md"])
def test_training_from_python_configures(name, here, monkeypatch):
    write_files(ROOT / "docs/extending.md", here)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setattr("sam_spl.registry.Registry.register", lambda registry, name, entry: entry)
    trained, tested = [], []
    for function, calls in (("train", trained), ("test", tested)):
        done = SimpleNamespace(best=here, folder=here, scores={"iou": 1.0}, images=[])
        monkeypatch.setattr(
            sam_spl, function, lambda config, c=calls, d=done: c.append(config) or d, raising=False
        )
    for language, content in blocks(ROOT / name):
        if language == "python" and "sam_spl.train(" in content:
            exec(compile(content, name, "exec"), {})
    assert trained and all(isinstance(config, TrainConfig) for config in trained)
    assert tested and all(isinstance(config, TestConfig) for config in tested)


@each_text
def test_commands_are_understood(text, here):
    write_files(ROOT / "docs/extending.md" if text.name == "README.md" else text, here)
    for name, *words in commands(text):
        folders, rest = own_folders(words)
        for folder in folders:
            sam_spl.config.add_config_folder(folder)
        chosen = command(name)
        line = parse(rest, chosen)
        if not chosen.groups:
            assert configure(line, chosen)
            continue
        several = ("dataset", "weights") if name == "test" else ()
        for job in jobs(line.words, several=several, multirun="multirun" in line.options)[:1]:
            check_own_code(
                compose.train_config(job.words) if name == "train" else compose.test_config(job.words)
            )


def check_own_code(config) -> None:
    """Code that stands in a document's own files can be imported and made."""
    if isinstance(config, TrainConfig):
        if ".py:" in config.model.name or config.model.name == "my_net":
            assert build(config.model)
        if ".py:" in config.loss.name:
            assert build_loss(config.loss)
        assert callable(AUGMENTATIONS[config.trainer.augment](64, "pillow"))
        assert config.logger is None or callable(LOGGERS[config.logger])
    else:
        assert protocols_named(config.protocols)
        assert config.model is None or ".py:" not in config.model or network_class(config.model)


def test_the_readme_is_wrapped_and_keeps_the_published_commands():
    text = (ROOT / "README.md").read_text()
    assert max(map(len, text.splitlines())) <= 120
    words = " ".join(text.replace("\\\n", " ").split())
    for published in (
        "python training.py --batch_size 12 --image_size 256 --lr 1e-2 --dataset NUDT-SIRST "
        "--save_dir ./checkpoints/NUDT-SIRST --gpu 0",
        "torchrun --nproc_per_node=4 --nnodes=1 training.py --batch_size 12 --image_size 256 --lr 1e-2 "
        "--dataset NUDT-SIRST --save_dir ./checkpoints/NUDT-SIRST --use_ddp",
        "python testing.py --dataset NUDT-SIRST --image_size 256 --weights ./checkpoints/NUDT-SIRST.pt "
        "--device cuda:0",
        "python training.py model=datransnet dataset=sirst recipe=datransnet trainer.epochs=400",
        "bash scripts/demo.sh",
        "bash scripts/test.sh",
    ):
        assert published in words
