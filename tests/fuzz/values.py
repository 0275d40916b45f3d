"""Hostile configuration values, YAML files, and words of command lines."""

from __future__ import annotations

from pathlib import Path
from random import Random

from sam_spl.cli.grammar import kinds
from sam_spl.cli.main import NAMES, command
from sam_spl.config import config_folder
from tests.fuzz.change import change_bytes, hostile_word
from tests.fuzz.judge import Case
from tests.fuzz.valid import TEST, TRAIN

_SHORT = [*TRAIN, "trainer.epochs=1", "save_dir=run"]

#: Key -> values that are refused, or do no harm; of a whole training.
_TRAINED: dict[str, tuple[str, ...]] = {
    "seed": ("-1", "1000000000000000000000", "abc", "1.5", "nan", "9223372036854775807", "4294967296", ""),
    "optimizer.warmup_epochs": ("nan", "inf", "-1", "-inf", "1e308", "abc"),
    "optimizer.gamma": ("nan", "inf", "-1", "1e308"),
    "optimizer.lr": ("nan", "inf", "-1", "0", "1e308", "1e-320"),
    "optimizer.weight_decay": ("nan", "inf", "-1", "1e308"),
    "optimizer.eta_min": ("nan", "inf", "-1", "2"),
    "optimizer.milestones": ("[-1]", "[nan]", "[abc]", "abc", "[[1]]", "[1000000000000]"),
    "optimizer.args": ("{a: 1}", "[1]", "abc", "{betas: 5}", "{betas: [nan,nan,nan]}", "{lr: x}"),
    "optimizer.name": ("", "abc", "os:system", "../x", "canary:sing", "None"),
    "optimizer.schedule": ("abc", "", "null"),
    "optimizer.trunk_lr_scale": ("nan", "inf", "-1"),
    "trainer.clip_grad": ("nan", "inf", "-1", "1e308", "abc"),
    "trainer.ema_decay": ("nan", "inf", "-1", "1", "abc"),
    "trainer.val_share": ("nan", "inf", "-1", "1", "0.999"),
    "trainer.batch_size": ("0", "-1", "nan", "1000000000000", "9" * 30, "abc"),
    "trainer.eval_batch_size": ("0", "-1", "1000000000000", "nan"),
    "trainer.epochs": ("0", "-1", "nan", "abc", "9" * 30),
    "trainer.eval_every": ("0", "-1", "1000000000000"),
    "trainer.save_every": ("0", "-1", "1000000000000"),
    "trainer.minutes": ("nan", "inf", "-inf", "-1", "0", "1e-320", "1e-3", "abc", "true"),
    "trainer.accumulate": ("0", "-1", "nan", "1.5", "10000000", "1000000000000", "9" * 30, "abc", "null"),
    "trainer.sync_bn": ("true", "false", "abc", "", "null", "1", "nan"),
    "trainer.save_every_steps": ("0", "-1", "1", "nan", "1.5", "1000000000000", "abc"),
    "trainer.max_bad_steps": ("-1", "0", "nan", "inf", "1.5", "1000000000000", "9" * 30, "abc", "null"),
    "trainer.stall_minutes": ("-1", "0", "nan", "inf", "1e308", "1e-320", "abc", "null"),
    "on_bad_sample": ("skip", "SKIP", "abc", "", "null", "1"),
    "trainer.augment": ("abc", "", "a" * 9999, "canary.py:sing"),
    "trainer.selection": ("abc", "null", ""),
    "copy_paste.probability": ("nan", "-1", "2", "abc", "inf"),
    "copy_paste.source": ("abc", ""),
    "dataset.missing": ("foo", "", "null"),
    "dataset.resize": ("foo", "null"),
    "dataset.source": ("foo", "null"),
    "dataset.image_size": ("1000000", "-5", "0", "64.5", "nan", "abc", "null", "31", "9" * 30),
    "dataset.test_size": ("1000000", "-5", "0", "64.5"),
    "dataset.mean": ("null", "[]", "[nan]", "[1,2]", "abc", "[[1]]", "[inf]"),
    "dataset.std": ("null", "[]", "[0]", "[-1]", "[nan]", "[1,2]", "[1e-320]"),
    "dataset.group": ("(", "a" * 9999, "[", "(?P<a"),
    "dataset.title": ("../../x", "", "null", "a" * 999, "a/b", "\n"),
    "dataset.synthetic.train": ("-1", "abc", "1000000000000", "nan", "1.5", "null", "[1]", "9" * 30),
    "dataset.synthetic.test": ("-1", "abc", "1000000000000"),
    "dataset.synthetic.val": ("-1", "abc", "1000000000000"),
    "dataset.synthetic.scr": (
        "[inf,inf]",
        "[nan,nan]",
        "[5,3]",
        "inf",
        "[1]",
        "[0,0]",
        "[-1,5]",
        "[1,1e308]",
    ),
    "dataset.synthetic.areas": ("[0,0]", "[1e308,1e308]", "[1,1e308]", "[nan,1]", "[1,1000000]", "abc"),
    "dataset.synthetic.most_targets": ("-4", "0", "1.5", "1000000000000", "9" * 30, "abc"),
    "dataset.synthetic.empty": ("-1", "2", "nan", "abc"),
    "dataset.synthetic.dark": ("-1", "2", "nan"),
    "dataset.synthetic.unknown": ("1",),
    "save_dir": ("", " ", "/dev/null", "/dev/null/x", "a" * 300, "\n", "\x1b[31m"),
    "loss": ("null", "", "abc", "os:system", "canary.py:sing", "[1]", "../x"),
    "loss.name": ("null", "", "abc", "os:path"),
    "loss.arguments": ("abc", "{a: 1}", "[1]", "{weight: nan}"),
    "model": ("null", "", "abc", "os:path", "os:system", "../x", "[1]", "nothing.py:Net", ":"),
    "model.embed_dim": ("0", "-16", "17", "1000000000000", "nan", "abc", "null"),
    "model.num_heads": ("0", "-1", "3", "1000000000000"),
    "model.stages": ("[]", "[0,0,0]", "[-1,2,2]", "[1]", "abc", "[1000000000,1,1]"),
    "model.window_spec": ("[]", "[0,0,0]", "[-1,-1,-1]", "[1000000,1000000,1000000]"),
    "model.global_att_blocks": ("[-1]", "[1000000000000]", "[abc]"),
    "model.pos_size": ("[0,0]", "[-1,7]", "[100000,100000]", "7"),
    "model.block": ("abc", "", "null", "__class__"),
    "model.head_bias": ("nan", "inf", "1e308", "abc"),
    "model.trunk_weights": ("", "abc", "/dev/null", "/dev/zero", ".", "a" * 300),
    "dataset": ("null", "", "abc", "[]", "[synthetic,sirst]", "[,]", "../x", "custom"),
    "recipe": ("null", "", "abc", "../x", "[1]"),
    "experiment": ("null", "", "abc", "../x"),
    "weights": ("", " ", "abc", "/dev/null", "/dev/zero", ".", "a" * 300, "a/" * 5000),
    "resume": ("", "abc", "/dev/null", "/dev/zero", ".", "a" * 300, "a/" * 5000),
    "logger": ("", "abc", ":"),
    "test_on": ("[abc]", "abc", "[]", "[same,same]", "['']"),
    "device": ("", "abc", "cuda:99", "cuda:-1", "meta", "cpu:5", "99999999999999999999"),
    "precision": ("abc", "null", ""),
    "num_workers": ("-1", "abc", "nan", "1000000"),
    "deterministic": ("abc", "2"),
    "use_ddp": ("abc", "true"),
    "overwrite": ("abc", "null"),
}
_TESTED: dict[str, tuple[str, ...]] = {
    "bootstrap": ("1000000000", "-1", "nan", "abc", "1.5", "9" * 30),
    "fa_budget": ("nan", "inf", "-1", "1e308", "0"),
    "image_size": ("1000000", "-5", "0", "64.5", "nan", "abc", "1"),
    "train_size": ("-1", "abc", "1000000000000"),
    "batch_size": ("0", "-1", "1000000000000", "nan"),
    "report": ("-1", "1000000000000", "nan", "abc"),
    "figures": ("-1", "1000000000000", "nan"),
    "overlays": ("-1", "1000000000000", "nan"),
    "protocols": ("[]", "[abc]", "abc", "[native,native]", "null"),
    "empty": ("abc", "2"),
    "split": ("abc", "null", ""),
    "engine": ("abc", "onnxruntime", "openvino"),
    "compile": ("abc", "null"),
    "save_predictions": ("abc", "true", ""),
    "save_dir": ("", " ", "/dev/null", "a" * 300),
    "dataset.lists": ("abc", "..", "/", "../..", ""),
    "dataset.group": ("(", "(a+)+$", ".*"),
    "dataset.data_path": ("", "/dev/null", "nothing", "/proc/self", "\n", "a" * 300, "a/" * 5000),
    "dataset.image_size": ("1000000", "null", "nan"),
    "model": ("os:path", "abc", "canary.py:Net"),
    "weights": ("", "abc", "[]", "[,]", "/dev/zero", "a" * 300, "a/" * 5000),
}
_PREDICTED: dict[str, tuple[str, ...]] = {
    "threshold": ("nan", "-1", "1", "inf", "abc"),
    "min_area": ("0", "-1", "nan", "1000000000000"),
    "top": ("0", "-1", "1000000000000"),
    "batch_size": ("0", "-1", "1000000000000"),
    "image_size": ("1000000", "-5", "0", "64.5", "nan", "31", "99999999999999999999", "²"),
    "tile": ("1000000", "-5", "0", "64.5", "nan", "31"),
    "max_megapixels": ("nan", "inf", "-1", "0", "1e-9"),
    "range": ("abc", "null"),
    "save": ("[abc]", "[]", "abc"),
    "output": ("", " ", "/dev/null", "a" * 300, "."),
    "dataset": ("abc", "../x", ""),
}


def _valued(start: list[str], table: dict[str, tuple[str, ...]], of: str) -> list[Case]:
    cases = []
    for key, values in table.items():
        for value in values:

            def make(folder: Path, valid: Path, key: str = key, value: str = value) -> list[str]:
                paths = {"data": valid / "data", "run": valid / "run"}
                return [
                    *(word.format(**paths) if "{run" in word or "{data" in word else word for word in start),
                    f"{key}={value}",
                ]

            last = key.rpartition(".")[2]
            about = (last, key, value[:20] or key, key.partition(".")[0], "dataset")
            cases.append(Case("values", f"{of} {key}={value[:20]!r}", make, about))
    return cases


_DATA = ["--data_path", "{data}", "--weights", "{run}", "--save_dir", "o"]
_PREDICT = ["predict", "{data}/images/im_2.png", "--weights", "{run}", "-o", "o", "device=cpu"]


def _yaml(name: str, group: str, text: str | bytes, *words: str) -> Case:
    """A file of one's own in ``--config_dir``."""

    def make(folder: Path, valid: Path) -> list[str]:
        (folder / "own" / group).mkdir(parents=True)
        path = folder / "own" / group / "mine.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        own = ["--config_dir", str(folder / "own")]
        return [*_SHORT[:1], *own, "--config", *_SHORT[1:], *words, f"{group}=mine"]

    return Case("yaml", f"{group} {name}", make, ("mine", group))


_YAMLS: dict[str, str | bytes] = {
    "of nothing": "",
    "of text": "text",
    "of a list": "- 1\n- 2\n",
    "torn": "name: [1, 2",
    "with tabs": "name:\n\t- 1\n",
    "with a tag": "name: !!python/object/apply:os.system ['echo']\n",
    "with a module tag": "name: !!python/module:canary\n",
    "with an anchor that grows": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{chr(98 + k)}: &{chr(98 + k)} [{','.join(['*' + chr(97 + k)] * 9)}]\n" for k in range(9)),
    "with an anchor to itself": "a: &a [*a]\n",
    "nested deep": "{" * 3000,
    "with unknown keys": "name: mine\nabc: 1\n",
    "with an interpolation of nothing": "name: ${nothing}\n",
    "with an interpolation of itself": "name: ${name}\n",
    "with an unknown resolver": "name: ${os.system:ls}\n",
    "with numbers as keys": "1: 2\nnull: 3\n",
    "with null": "null\n",
    "in Latin-1": "name: Brücke\n".encode("latin-1"),
    "in UTF-16": "name: mine\n".encode("utf-16"),
    "of zeros": bytes(100),
    "with defaults out of the folder": "# @package _global_\ndefaults:\n  - ../../../x\n",
    "with a target": "_target_: canary.sing\nname: mine\n",
    "with a date": "name: 2020-01-01\n",
}


def _random_value(rng: Random, folder: Path, valid: Path) -> list[str]:
    """One or two keys of a training, a test or a prediction have another value."""
    start, table = rng.choice(((_SHORT, _TRAINED), ([*TEST, *_DATA], _TESTED), (_PREDICT, _PREDICTED)))
    paths = {"data": valid / "data", "run": valid / "run"}
    words = [word.format(**paths) if "{run" in word or "{data" in word else word for word in start]
    for _ in range(rng.choice((1, 1, 2))):
        key = rng.choice(list(table))
        # Who names an output folder elsewhere means it.
        # Who asks for a training of many minutes means that as well.
        any_word = key not in ("save_dir", "output", "trainer.minutes") and rng.random() < 0.7
        words.append(f"{key}={hostile_word(rng) if any_word else rng.choice(table[key])}")
    return words


_KEYS = {name: [*kinds(command(name).config), *command(name).groups] for name in NAMES}


def _random_options(rng: Random, folder: Path, valid: Path) -> list[str]:
    """Words behind a command that ends soon: flags, keys and values of all kinds, in any order."""
    name = rng.choice(NAMES)
    if name in ("demo", "download"):  # they serve for ever, and ask the network
        start = [name, "port=0"] if name == "demo" else [name, "nothing"]
    elif name in ("train", "test"):
        start = [name, "--config"]
    elif name in ("export", "adapt", "calibrate", "visualize", "profile"):
        start = [name, "nothing"]
    else:
        start = [name]
    words = list[str]()
    for _ in range(rng.randrange(1, 6)):
        key = rng.choice(_KEYS[name])
        if rng.random() < 0.2:
            at = rng.randrange(len(key))
            key = key[:at] + rng.choice(("", "x", ".", "-", "=", "é")) + key[at + 1 :]
        value = hostile_word(rng)
        forms = ([f"{key}={value}"], [f"--{key}", value], [f"--{key}={value}"], [value], [f"--{key}"])
        words += rng.choice(forms)
    if name == "download" or name == "demo":  # names and ports that are valid would start something
        words = [word for word in words if word not in ("tiny", "small", "large")]
    return [*start, *words]


def _random_yaml(rng: Random, folder: Path, valid: Path) -> list[str]:
    group = rng.choice(("model", "dataset", "recipe", "loss", "experiment"))
    path = rng.choice(sorted((config_folder() / group).glob("*.yaml")))
    (folder / "own" / group).mkdir(parents=True)
    (folder / "own" / group / "mine.yaml").write_bytes(change_bytes(rng, path.read_bytes()))
    own = ["--config_dir", str(folder / "own")]
    return ["train", *own, "--config", "dataset=synthetic", "model=sam_spl_t", f"{group}=mine"]


def _option(name: str, *words: str, about: tuple[str, ...] = ()) -> Case:
    return Case("options", name, lambda folder, valid: list(words), about)


_OPTIONS = [
    _option("no command", "", about=()),
    _option("unknown command", "x" * 9999),
    _option("command with an escape", "\x1b[31m\n"),
    _option("value missing", "check", "--data_path", about=("data_path",)),
    _option("unknown flag of 10^4 letters", "check", "--" + "x" * 10**4),
    _option("only dashes", "train", "-", "--", "---"),
    _option("10^4 words", "train", *["x"] * 10**4),
    _option("10^4 values", "train", "--config", "dataset=" + "a," * 10**4),
    _option(
        "9^8 jobs",
        *("train", "-m", "--config", "dataset=synthetic", "model=sam_spl_t"),
        *(f"optimizer.args.a{k}=" + ",".join("123456789") for k in range(8)),
        about=("jobs",),
    ),
    _option(
        "10^5 jobs", "test", "weights=[" + ",".join(f"a{k}" for k in range(10**5)) + "]", about=("jobs",)
    ),
    _option("profile at no precision", "profile", "sam_spl_t", "precision=null", about=("precision",)),
    _option(
        "adapt at no precision",
        "adapt",
        "x",
        "--weights",
        "y",
        "-o",
        "z",
        "precision=abc",
        about=("precision",),
    ),
    _option("config_dir missing", "train", "--config_dir", about=("config_dir",)),
    _option("config_dir no folder", "train", "--config_dir", "/dev/null", about=("config_dir",)),
    _option(
        "brackets",
        "train",
        "--config",
        "dataset=synthetic",
        "model=sam_spl_t",
        "optimizer.args=" + "[" * 5000,
    ),
    _option(
        "interpolation", "train", "--config", "dataset=synthetic", "model=sam_spl_t", "dataset.title=${x}"
    ),
    _option(
        "resolver",
        "train",
        "--config",
        "dataset=synthetic",
        "model=sam_spl_t",
        "dataset.title=${oc.env:HOME}",
    ),
]

NAMED = [
    *_valued(_SHORT, _TRAINED, "train"),
    *_valued([*TEST, *_DATA], _TESTED, "test"),
    *_valued(_PREDICT, _PREDICTED, "predict"),
    *(
        _yaml(name, group, text)
        for name, text in _YAMLS.items()
        for group in ("dataset", "recipe", "model", "loss")
    ),
    *_OPTIONS,
]
RANDOM = {
    "values": (_random_value, ()),
    "yaml": (
        _random_yaml,
        ("mine", "model", "dataset", "recipe", "loss", "experiment", "optimizer", "trainer", "copy_paste"),
    ),
    "options": (_random_options, ()),
}
