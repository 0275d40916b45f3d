"""The two commands as a user meets them, on tiny networks and images."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import sam_spl
from sam_spl.cli.main import run
from sam_spl.data.catalog import open_dataset
from sam_spl.data.config import DatasetConfig
from sam_spl.engine.trainer import Trainer
from sam_spl.errors import InputError
from tests.conftest import TINY_OVERRIDES, results_in, test, train, write_folder

TINY_SET = [
    "dataset.image_size=64",
    "dataset.synthetic.train=6",
    "dataset.synthetic.val=3",
    "dataset.synthetic.test=4",
    "trainer.batch_size=4",
    "optimizer.lr=1e-3",
    "device=cpu",
]


def _train(save_dir: Path, *more: str) -> list[dict]:
    train([*TINY_OVERRIDES, *TINY_SET, "--save_dir", str(save_dir), *more])
    return [json.loads(line) for line in (save_dir / "metrics.jsonl").read_text().splitlines()]


def _test(save_dir: Path, *more: str) -> dict:
    test(["--weights", str(save_dir), "device=cpu", *TINY_SET[:4], *more])
    return json.loads(next(save_dir.glob("**/results.json")).read_text())


def _losses(rows: list[dict]) -> list[float]:
    return [row["loss"] for row in rows]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    _train(folder, "trainer.epochs=2", "recipe=scratch", "trainer.ema_decay=0.5")
    return folder


def test_a_run_folder_holds_what_the_design_says(trained):
    names = {path.name for path in trained.iterdir()}
    assert {
        "config.yaml",
        "train.log",
        "metrics.jsonl",
        "last.pt",
        "best.pt",
        "best.safetensors",
        "curves.png",
    } <= names
    assert not [name for name in names if name.endswith(".tmp")]
    assert "epoch 2/2 loss" in (trained / "train.log").read_text()
    assert cv2.imread(str(trained / "curves.png")) is not None
    torch.load(trained / "last.pt", weights_only=True)


def test_testing_equals_the_last_validation(trained, capsys):
    # Validation scenes under the test's command: the same images, weights and numbers.
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    best = max(rows, key=lambda row: row["iou"])
    result = _test(trained, "split=val", "seed=2727")
    for key in ("iou", "niou", "f1", "pd", "fa", "targets", "detected"):
        assert result["scores"][key] == best[key]
    line = capsys.readouterr().out
    number = r"(-|\d+\.\d\d)"
    assert re.search(
        rf"IoU = {number} \| F1 = {number} \| nIoU = {number} \| Pd = {number} \| Fa = {number}", line
    )


def test_scores_are_taken_in_float32_unless_asked_otherwise(tmp_path):
    run = tmp_path / "run"
    row = _train(run, "precision=bf16", "trainer.epochs=2", "recipe=scratch")[-1]
    results = {p: _test(run, "split=val", "seed=2727", *p) for p in ((), ("precision=bf16",))}
    assert [result["precision"] for result in results.values()] == ["float32", "bfloat16"]
    assert results[()]["scores"]["iou"] == row["iou"]  # validation too, though training is in bf16
    areas = [result["details"]["curves"]["auc_pixel"] for result in results.values()]
    assert areas[0] != areas[1]


@pytest.mark.parametrize("weights", ["", "best.pt", "best.safetensors", "last.pt"])
def test_every_weights_file_of_a_run_tests_without_a_model_flag(trained, tmp_path, weights):
    test(["--weights", str(trained / weights), "device=cpu", *TINY_SET[:4], f"output_dir={tmp_path}"])
    result = json.loads((tmp_path / "results.json").read_text())
    assert result["scores"]["images"] == len(result["images"]) == 4
    assert result["protocol"] == "native"
    assert result["weights"]["arguments"]["embed_dim"] == 16
    rows = list(csv.DictReader((tmp_path / "images.csv").open()))
    assert [int(row["intersection"]) for row in rows] == [image["intersection"] for image in result["images"]]
    assert len(list((tmp_path / "overlays").glob("*.png"))) == 4


def test_scores_do_not_depend_on_the_batch_size(trained, tmp_path):
    results = []
    for size in (1, 3, 4):
        test(
            [
                "--weights",
                str(trained),
                "--batch_size",
                str(size),
                "device=cpu",
                *TINY_SET[:4],
                f"output_dir={tmp_path}",
            ]
        )
        results.append(json.loads((tmp_path / "results.json").read_text())["images"])
    assert results[0] == results[1] == results[2]


def test_a_predictor_gives_what_testing_scored(trained, folder):
    predict = sam_spl.load(trained, device="cpu", precision="fp32")  # bf16 would round the two inputs apart
    image = cv2.imread(str(folder / "images" / "im_0.png"), cv2.IMREAD_GRAYSCALE)
    prob = predict(image).prob
    assert prob.shape == image.shape
    assert ((prob >= 0) & (prob <= 1)).all()
    np.testing.assert_allclose(predict(np.dstack([image] * 3)).prob, prob, atol=1e-6)
    np.testing.assert_allclose(predict(image.astype(np.uint16) * 257).prob, prob, atol=1e-4)


@pytest.mark.parametrize("recipe", ["sam_spl", "scratch"])
def test_resuming_equals_never_having_stopped(tmp_path, recipe):
    extra = (f"recipe={recipe}", "trainer.epochs=3")
    whole = _train(tmp_path / "whole", *extra)

    stop_after(1, tmp_path / "parts", extra)
    parts = _train(tmp_path / "parts", *extra, "--resume")  # the same command again
    assert _losses(parts) == _losses(whole)

    stop_after(2, tmp_path / "alone", extra)
    train(["--resume", str(tmp_path / "alone")])  # the folder alone
    a, b = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "alone"))
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])


def stop_after(epochs: int, save_dir: Path, extra: tuple[str, ...]) -> None:
    """A second Ctrl-C in the middle of the epoch that follows."""
    update = Trainer.make_update

    def interrupted(self, batches):
        if (self.epoch, self.step) == (epochs, 1):
            raise KeyboardInterrupt
        return update(self, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "make_update", interrupted)
        with pytest.raises(KeyboardInterrupt, match=f"{epochs} of 3 epochs are saved.*--resume"):
            _train(save_dir, *extra)


def test_a_non_finite_loss_stops_before_the_weights_are_touched(tmp_path):
    """The first step leaves giant weights, of which the second one and validation show what they are."""
    with pytest.raises(
        InputError, match=r"^answers to validation images are not finite after epoch 1\. .*optimizer\.lr"
    ):
        _train(tmp_path / "r", "optimizer.name=sgd", "optimizer.args={}", "--lr", "1e30", "trainer.epochs=5")
    state = torch.load(tmp_path / "r" / "last.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_a_run_is_not_overwritten_unless_asked(tmp_path, capsys):
    _train(tmp_path / "r", "trainer.epochs=1")
    before = (tmp_path / "r" / "last.pt").read_bytes()
    code, message = _failure("train", [*TINY_OVERRIDES, *TINY_SET, f"save_dir={tmp_path / 'r'}"], capsys)
    assert (code, "holds a run already" in message) == (2, True)
    assert (tmp_path / "r" / "last.pt").read_bytes() == before
    assert len(_train(tmp_path / "r", "trainer.epochs=1", "overwrite=true")) == 1


def test_fine_tuning_starts_from_given_weights(trained, tmp_path):
    state = torch.load(trained / "best.pt", weights_only=True)["model"]
    _train(tmp_path / "r", f"weights={trained}", "trainer.epochs=1", "--lr", "1e-30", "--eta_min", "0")
    tuned = torch.load(tmp_path / "r" / "last.pt", weights_only=True)["model"]
    assert torch.equal(state["decoder.heads.0.weight"], tuned["decoder.heads.0.weight"])


def test_a_folder_of_ones_own_trains_and_tests(folder, tmp_path, capsys):
    flags = ["--dataset", "custom", "--data_path", str(folder), "--image_size", "32", "--device", "cpu"]
    small = [*TINY_OVERRIDES, "--batch_size", "2", "--epoch", "1", "--save_dir", str(tmp_path / "r")]
    train([*flags, *small, "trainer.val_share=0.25"])
    assert "3 train, 1 val, 2 test images" in capsys.readouterr().out
    test([*flags[:4], "--device", "cpu", "--weights", str(tmp_path / "r")])
    result = results_in(tmp_path / "r")
    assert [image["name"] for image in result["images"]] == ["im_4", "im_5"]
    assert {image["pixels"] for image in result["images"]} == {48 * 40}  # scored at their own size


def test_a_folder_without_lists_is_tested_whole_unless_the_weights_were_trained_on_it(tmp_path, capsys):
    own, foreign = (
        write_folder(tmp_path / "own", count=12),
        write_folder(tmp_path / "foreign", 7, size=(44, 52)),
    )
    run = tmp_path / "r"
    flags = [
        "--dataset",
        "custom",
        "--image_size",
        "32",
        "--device",
        "cpu",
        "trainer.val_share=0.2",
        "test_on=[same]",
    ]
    train([*flags, "--data_path", str(own), *TINY_OVERRIDES, "--epoch", "1", "--save_dir", str(run)])
    output = capsys.readouterr().out
    held_out = open_dataset(DatasetConfig.named("custom", data_path=str(own))).parts["test"].count
    same = results_in(run)
    assert (same["dataset"]["split"], same["scores"]["images"]) == ("test", held_out)
    assert 0 < held_out < 6
    assert "one image in five is held out for testing" in output  # in training
    (told,) = (line.partition("Test with: ")[2] for line in output.splitlines() if "Test with: " in line)
    assert told.startswith("sam-spl test --weights ")
    test([*shlex.split(told)[2:], "device=cpu", f"output_dir={tmp_path / 'told'}", "report=0", "bootstrap=0"])
    assert json.loads((tmp_path / "told" / "results.json").read_text())["images"] == same["images"]
    assert (
        "one image in five is tested, by the hash of its name: these weights were trained on the others"
        in output
    )

    def tested(folder: Path, *more: str) -> tuple[str, int, str]:
        words = [
            "--dataset",
            "custom",
            "--data_path",
            str(folder),
            "--weights",
            str(run),
            "--device",
            "cpu",
            *more,
        ]
        test([*words, f"output_dir={tmp_path / 'out'}", "report=0", "bootstrap=0"])
        result = json.loads((tmp_path / "out" / "results.json").read_text())
        return result["dataset"]["split"], len(result["images"]), capsys.readouterr().out

    split, count, output = tested(foreign)
    assert (split, count) == ("all", 7)
    assert "custom, lists none, 7 images (all)" in output
    assert "all images are tested: no lists, and these weights do not state that they were trained" in output
    split, count, output = tested(foreign, "split=test")
    assert (split, count) == (
        "test",
        open_dataset(DatasetConfig.named("custom", data_path=str(foreign))).parts["test"].count,
    )
    assert "note" not in output
    split, count, output = tested(own, "split=all")
    assert (split, count) == ("all", 12)
    assert "these weights were trained on images that are among the tested ones" in output


def test_selection_by_the_test_images_says_so_everywhere(folder, tmp_path, capsys):
    flags = ["--dataset", "custom", "--data_path", str(folder), "--image_size", "32", "--device", "cpu"]
    train([*flags, *TINY_OVERRIDES, "--epoch", "1", "trainer.selection=test", f"save_dir={tmp_path / 'r'}"])
    assert "TEST images" in capsys.readouterr().out
    test([*flags[:4], "--device", "cpu", "--weights", str(tmp_path / "r")])
    assert "chosen on the test images" in capsys.readouterr().out
    assert results_in(tmp_path / "r")["weights"]["selected_by"] == "IoU on the test images"


def _failure(command, argv, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        run([command, *map(str, argv)])
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    assert output.err.startswith("error: ")
    return end.value.code, output.err


CUSTOM = ["--dataset", "custom", "--data_path", "{folder}", "--image_size", "32", "--save_dir", "{tmp}/r"]


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--dataset", "NUDT-SIRTS"], 2, "Nearest: NUDT-SIRST"),
        (["--batchsize", "3"], 2, "Nearest: --batch_size"),
        (["--lr", "abc"], 2, "optimizer.lr: 'abc' is not a number"),
        (["--lr", "-1"], 2, "optimizer.lr"),
        (["optimizer.warmup_epochs=-1"], 2, "optimizer.warmup_epochs: -1.0 is not valid"),
        (["optimizer.warmup_epochs=nan"], 2, "optimizer.warmup_epochs: nan is not valid"),
        (["optimizer.warmup_epochs=inf"], 2, "optimizer.warmup_epochs: inf is not valid"),
        (["--batch_size", "0"], 2, "trainer.batch_size: 0 is not valid"),
        (["--image_size", "0"], 2, "dataset.image_size: 0 is not valid"),
        (["--image_size", "-256"], 2, "dataset.image_size: -256 is not valid"),
        (["--epoch"], 2, "--epoch: a value is missing"),
        (["--loss_func", "bce_loss_x"], 2, "loss: 'bce_loss_x' is unknown. Nearest: bce"),
        (["model=sam_spl_q"], 2, "Nearest: sam_spl_"),
        (["trainer.epoch=3"], 2, "Nearest: trainer.epochs"),
        (["nonsense"], 2, "neither a flag nor key=value"),
        (["--use_ddp"], 2, "torchrun --nproc_per_node"),
        (["--dataset", "custom"], 2, "dataset.data_path: a value is required, as --data_path FOLDER"),
        (["precision=fp8"], 2, "precision: fp8 is not valid"),
        (["optimizer.name=adann", *TINY_OVERRIDES, *TINY_SET], 2, "optimizer: adann"),
        (["--device", "cuda:77"], 1, "device: cuda:77 is not there"),
        (["--device", "cup"], 1, "is not a device"),
        (["--dataset", "SIRST", "--data_path", "{tmp}/absent"], 1, "no folder {tmp}/absent"),
        (["--dataset", "SIRST", "--data_path", "{tmp}/empty"], 1, "no folder named SIRST"),
        (["--resume", "{tmp}/absent"], 1, "resume: no file"),
        ([*CUSTOM, "trainer.selection=val"], 2, "no validation images"),
        ([*CUSTOM, "--weights", "{tmp}/absent.pt"], 1, "no file {tmp}/absent.pt"),
        ([*CUSTOM[:6], "--save_dir", "{folder}/train.txt/run"], 1, "cannot write"),
        ([*CUSTOM, "model.trunk_weights={folder}/train.txt"], 1, "damaged"),
    ],
)
def test_what_a_user_can_get_wrong_in_training(argv, code, message, folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    fill = {"folder": folder, "tmp": tmp_path}
    words = [word.format(**fill) if "{" in word else word for word in argv]
    ended, text = _failure("train", [f"save_dir={tmp_path / 'r'}", *words], capsys)
    assert (ended, message.format(**fill) in text) == (code, True), text
    assert not (tmp_path / "r").exists()


def _shrink_mask(folder: Path) -> None:
    cv2.imwrite(str(folder / "masks" / "im_1.png"), np.zeros((5, 7), np.uint8))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "masks" / "im_1.png").unlink(), "have no mask"),
        (
            lambda folder: (folder / "images" / "im_1.png").write_bytes(b"broken"),
            "im_1.png is not a readable image",
        ),
        (lambda folder: (folder / "masks" / "im_1.png").write_bytes(b""), "im_1.png is not a readable image"),
        (lambda folder: (folder / "train.txt").write_text(""), "is empty"),
        (lambda folder: (folder / "train.txt").write_text("im_0\nim_9"), "first im_9"),
        (_shrink_mask, "is 7x5, its image im_1.png 40x48"),
    ],
)
def test_damaged_data_stops_training_before_anything_is_written(damage, message, folder, tmp_path, capsys):
    damage(folder)
    argv = [word.format(folder=folder, tmp=tmp_path) for word in CUSTOM]
    code, text = _failure("train", argv, capsys)
    assert (code, message in text) == (1, True), text
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        ([], 2, "weights: a value is required"),
        (["--weights", "{tmp}/absent.pt"], 1, "no file {tmp}/absent.pt"),
        (["--weights", "{folder}"], 1, "without best.safetensors"),
        (["--weights", "{folder}/train.txt"], 1, "damaged"),
        (["--weights", "{run}", "--image_size", "0"], 2, "image_size: 0 is not valid"),
        (["--weights", "{run}", "--batch_size", "-1"], 2, "batch_size: -1 is not valid"),
        (["--weights", "{run}", "split=tset"], 2, "split: tset is not valid"),
        (["--weights", "{run}", "train_size=0"], 2, "train_size: 0 is not valid"),
        (
            ["--weights", "{run}", "--dataset", "custom", "--data_path", "{folder}", "split=val"],
            1,
            "no val images",
        ),
    ],
)
def test_what_a_user_can_get_wrong_in_testing(argv, code, message, trained, folder, tmp_path, capsys):
    fill = {"folder": folder, "tmp": tmp_path, "run": trained}
    named = ["dataset=synthetic"] if argv and "--dataset" not in argv else []
    ended, text = _failure("test", [*named, *(word.format(**fill) for word in argv)], capsys)
    assert (ended, message.format(**fill) in text) == (code, True), text


def test_a_set_that_is_not_named_is_not_replaced_by_generated_images(trained, folder, capsys):
    code, text = _failure("test", ["--weights", trained], capsys)
    assert (code, "name the set to test on" in text) == (2, True)
    for command in ("train", "test"):
        code, text = _failure(command, ["--data_path", folder, "--weights", trained], capsys)
        assert (code, "needs the name of a set as well" in text) == (2, True)


def test_a_fault_of_ours_keeps_its_traceback(tmp_path, monkeypatch):
    def broken(self, batches):
        raise ZeroDivisionError

    monkeypatch.setattr(Trainer, "make_update", broken)
    with pytest.raises(ZeroDivisionError):
        run(["train", *TINY_OVERRIDES, *TINY_SET, f"save_dir={tmp_path / 'r'}"])


def test_published_commands_compose_word_for_word(capsys):
    training = (
        "--batch_size 12 --image_size 256 --lr 1e-2 --dataset NUDT-SIRST --save_dir ./checkpoints/NUDT-SIRST "
        "--gpu 0 --epoch 300 --eta_min 1e-6 --seed 1 --local_rank 0 --data_path ./datasets "
        "--loss_func BCELoss --config_path configs/sam2.1/sam2.1_hiera_s.yaml --use_ddp --config"
    )
    train(training.split())
    text = capsys.readouterr().out
    for line in (
        "batch_size: 12",
        "lr: 0.01",
        "device: cuda:0",
        "use_ddp: true",
        "name: sam_spl_s",
        "seed: 1",
    ):
        assert line in text
    testing = (
        "--dataset NUDT-SIRST --image_size 256 --weights ./checkpoints/NUDT-SIRST.pt --device cuda:0 "
        "--batch_size 4 --data_path ./datasets --seed 1 --config"
    )
    test(testing.split())
    assert "weights: ./checkpoints/NUDT-SIRST.pt" in capsys.readouterr().out


def test_help_names_every_flag_and_group(capsys):
    train(["--help"])
    text = capsys.readouterr().out
    for word in ("--batch_size", "--use_ddp", "--config_path", "sam_spl_t", "scratch", "torchrun"):
        assert word in text


def test_real_images_train_and_test(sirst, tmp_path):
    root = tmp_path / "few"
    (root / "50_50").mkdir(parents=True)
    for name in ("images", "masks"):
        (root / name).symlink_to(sirst / name)
    for name, count in (("train", 6), ("test", 5)):
        lines = (sirst / "50_50" / f"{name}.txt").read_text().split()[:count]
        (root / "50_50" / f"{name}.txt").write_text("\n".join(lines))
    flags = ["--dataset", "SIRST", "--data_path", str(root), "--device", "cpu"]
    train([*flags, *TINY_OVERRIDES, "--image_size", "64", "--epoch", "2", "--save_dir", str(tmp_path / "r")])
    test([*flags, "--weights", str(tmp_path / "r")])
    result = results_in(tmp_path / "r")
    masks = [
        cv2.imread(str(sirst / "masks" / f"{image['name']}_pixels0.png"), 0) for image in result["images"]
    ]
    assert [image["pixels"] for image in result["images"]] == [mask.size for mask in masks]
    assert [image["labelled"] for image in result["images"]] == [int((mask > 127).sum()) for mask in masks]


def test_datransnet_trains_at_its_size_and_tests_at_each_images_own(folder, tmp_path):
    flags = ["--dataset", "custom", "--data_path", str(folder), "--device", "cpu"]
    recipe = ["model=datransnet", "recipe=datransnet", "--image_size", "64", "--epoch", "1"]
    train([*flags, *recipe, "--save_dir", str(tmp_path / "r")])
    test([*flags, "--weights", str(tmp_path / "r")])
    result = results_in(tmp_path / "r")
    assert result["weights"]["arguments"] == {"train_size": 64, "head_bias": None}
    assert (result["image_size"], result["weights"]["in_channels"], result["weights"]["mean"]) == (
        None,
        1,
        [0.0],
    )
    assert result["scores"]["images"] == 2


BARE = ["device=cpu", "report=0", "overlays=0", "bootstrap=0", "curves=false"]


def _folders(run: Path) -> list[Path]:
    return sorted(run.glob("test-*"))


@pytest.fixture
def alone(trained, tmp_path) -> Path:
    """A folder that holds the weights and no results."""
    (tmp_path / "alone").mkdir()
    return Path(shutil.copy(trained / "best.safetensors", tmp_path / "alone"))


def test_folders_of_one_name_are_tested_into_folders_of_their_own(alone, tmp_path, monkeypatch):
    for name in ("d1", "d2"):
        write_folder(tmp_path / name / "mine", size=(32, 32))
        test([f"weights={alone}", "dataset=custom", f"dataset.data_path={tmp_path / name / 'mine'}", *BARE])
    folders = _folders(alone.parent)
    assert [re.sub(r"-[0-9a-f]{6}$", "", folder.name) for folder in folders] == [
        "test-best-mine-all-64",
        "test-best-mine-all-64",
    ]
    where = {results_in(folder)["dataset"]["where"] for folder in folders}
    assert where == {str(tmp_path / name / "mine") for name in ("d1", "d2")}
    monkeypatch.chdir(tmp_path)
    test(
        [f"weights={alone}", "dataset=custom", "dataset.data_path=d1/mine", *BARE]
    )  # the first one's other spelling
    assert _folders(alone.parent) == folders


def test_generated_images_of_other_settings_are_tested_into_folders_of_their_own(alone):
    words = ["dataset=synthetic", f"weights={alone}", *TINY_SET[:4], *BARE]
    changes = ([], ["dataset.synthetic.scr=[6,16]"], ["dataset.image_size=96"], ["seed=1"], [])
    for change in changes:
        test([*words, *change])
    assert len(_folders(alone.parent)) == len(changes) - 1


@pytest.mark.parametrize(
    "wrong", [["--protocols", "nativ"], ["split=tset"], ["dataset.group=("], ["save_predictions=tiff"]]
)
def test_a_typo_leaves_the_earlier_result(wrong, alone, tmp_path, capsys):
    words = [f"weights={alone}", *TINY_SET[:4], *BARE, f"output_dir={tmp_path / 'x'}"]
    test(words)
    before = {path: path.read_bytes() for path in (tmp_path / "x").iterdir()}
    assert _failure("test", [*words, *wrong], capsys)[0] == 2
    assert {path: path.read_bytes() for path in (tmp_path / "x").iterdir()} == before


def test_files_of_ones_own_in_the_output_folder_stay(alone, tmp_path, capsys):
    mine = tmp_path / "u" / "figures" / "paper.pdf"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    (tmp_path / "u" / "results.json").write_text("{}")
    words = [f"weights={alone}", *TINY_SET[:4], *BARE, f"output_dir={tmp_path / 'u'}"]
    code, text = _failure("test", words, capsys)
    assert (code, "holds results.json, but no results.json of a test" in text) == (1, True), text
    assert mine.read_text() == "mine"


def test_opencv_has_its_threads_again_after_a_test(alone, tmp_path):
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(3)
        test([f"weights={alone}", *TINY_SET[:4], *BARE, f"output_dir={tmp_path / 'x'}"])
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)
