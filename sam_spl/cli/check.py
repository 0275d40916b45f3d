"""``sam-spl check``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from sam_spl.cli.command import Command

_SHOWN = 24  # images in the picture


@dataclass
class CheckConfig:
    """Count what a data set holds, and find what is wrong with it."""

    dataset: str = MISSING  # name or alias of a data set, or a folder
    data_path: str = "./datasets"  # folder of the data set, or its parent folder
    lists: str | None = None  # folder of the split lists, where there are several
    output: str = "./checks"  # folder for NAME.json and NAME.png: all findings, and images with their targets


def check(config: CheckConfig) -> None:
    """Check a data set, print what was found, and write it to files."""
    import json
    from pathlib import Path

    from sam_spl.data.catalog import locate
    from sam_spl.data.check import check_split, examples, table
    from sam_spl.data.config import DatasetConfig
    from sam_spl.errors import InputError
    from sam_spl.files import write_text
    from sam_spl.report.sheet import draw_sheet

    folder = Path(config.dataset).expanduser()
    wanted = {"lists": config.lists, "missing": "skip"}
    if folder.is_dir():
        title = folder.resolve().name
        dataset = DatasetConfig.named("custom", title=title, data_path=str(folder), **wanted)
    else:
        dataset = DatasetConfig.named(config.dataset, data_path=config.data_path, **wanted)
    split = locate(dataset)
    report = {"dataset": dataset.title} | check_split(split, dataset)

    output = Path(config.output).expanduser() / dataset.title
    write_text(f"{output}.json", json.dumps(report, indent=1) + "\n")
    images = ", ".join(f"{count} {role}" for role, count in report["images"].items() if count)
    title = f"{dataset.title} (lists {split.lists}): {images} images, {report['targets']} targets"
    draw_sheet(f"{output}.png", title, examples(split, report, _SHOWN), report["areas"])

    print(table(report))
    print(f"{output}.json and .png written")
    for text in report["noteworthy"]:
        print(f"note:  {text}.")
    for text in report["wrong"]:
        print(f"wrong: {text}.")
    if report["wrong"]:
        raise InputError(
            f"{dataset.title}: {len(report['wrong'])} error(s), listed above. All names are in {output}.json"
        )
    count = len(report["noteworthy"])
    print(f"no errors, {count} note{'s' * (count != 1)}.")


COMMAND = Command(
    name="check",
    config=CheckConfig,
    run=check,
    positional=("dataset",),
    aliases={"-o": "output"},
    examples=(
        "sam-spl check SIRST",
        "sam-spl check SIRST --lists 50_50 -o checks",
        "sam-spl check ./my_images",
    ),
)
