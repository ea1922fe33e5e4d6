"""`sfc check`: everything wrong in one pass, and the long tail."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from sfc.check.dataset import CheckReport, check_dataset
from sfc.check.report import print_report
from sfc.data.images import write_mask
from sfc.data.readers import DataSection
from sfc.errors import DataError

CLASSES = "background\nrare\ncommon\nnever\n"


def write(root: Path, table: str, rows: list[tuple[str, str, list[int] | None]]) -> None:
    """A table, its images (8 x 6, each its name's own) and those masks that are given by their values."""
    lines = ["image,labels,mask"]
    for name, labels, values in rows:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(list(name.encode())).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
        mask = "" if values is None else f"masks/{table}/{Path(name).stem}.png"
        if values is not None:
            write_mask(root / mask, np.resize(np.array(values, dtype=np.uint8), (6, 8)))
        lines.append(f"{name},{labels},{mask}")
    (root / f"{table}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def sound(tmp_path: Path) -> DataSection:
    write(
        tmp_path,
        "train",
        [
            ("1.png", "common", None),
            ("2.png", "common", None),
            ("3.png", "common;rare", None),
            ("4.png", "", None),
        ],
    )
    write(tmp_path, "val", [("v.png", "common", [0, 2, 255]), ("w.png", "rare", [1])])
    write(tmp_path, "scoring", [("1.png", "common", [0, 2]), ("3.png", "common;rare", [1, 2])])
    (tmp_path / "classes.txt").write_text(CLASSES)
    return DataSection(root=str(tmp_path), classes="classes.txt", val="val.csv", train_masks="scoring.csv")


def shown(report: CheckReport) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=120))
    return stream.getvalue()


def test_sound_data(sound: DataSection) -> None:
    report = check_dataset(sound)
    assert report.broken == ()
    assert [(split.split, split.images, split.negatives, split.masks) for split in report.splits] == [
        ("train", 4, 1, 0),
        ("train masks", 2, 0, 2),
        ("val", 2, 0, 2),
    ]
    assert report.splits[0].labels == 1.0
    assert [(item.name, item.train, item.group, item.val) for item in report.classes] == [
        ("common", 3, "head", 1),
        ("rare", 1, "tail", 1),
        ("never", 0, "absent", 0),
    ]
    assert [(remark.text, remark.count) for remark in report.remarks] == [
        ("classes without training images, which take no part", 1)
    ]


def test_sizes(sound: DataSection, tmp_path: Path) -> None:
    for name, size in (("1", (5, 7)), ("2", (9, 2))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    report = check_dataset(DataSection(root=sound.root))
    height, width = report.splits[0].height, report.splits[0].width
    assert (height.minimum, height.median, height.maximum) == (2, 6, 7)
    assert (width.minimum, width.median, width.maximum) == (5, 8, 9)
    assert report.splits[0].sizes == 3


def test_coefficient_is_that_of_the_training(sound: DataSection) -> None:
    # 4 images in batches of 2: 2 steps of 1 draw, a slot each for common and rare. An image that shows common shows
    # rare in 1 of 3 cases, one that shows rare always shows common.
    common, rare, _ = (item.coefficient for item in check_dataset(sound, batch=2, draws=1).classes)
    gap = 3 - 1
    expected_common = gap / (3 + 2 * (1 + 1) / 2)
    expected_rare = gap / (1 + 2 * (1 / 3 + 1) / 2)
    mean = (expected_common + expected_rare) / 2
    assert common == pytest.approx(expected_common / mean)
    assert rare == pytest.approx(expected_rare / mean)


def test_everything_broken_is_listed(sound: DataSection, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:20])
    (tmp_path / "2.png").unlink()
    write_mask(tmp_path / "masks" / "val" / "v.png", np.full((6, 8), 4, dtype=np.uint8))
    write_mask(tmp_path / "masks" / "val" / "w.png", np.ones((8, 6), dtype=np.uint8))
    with (tmp_path / "train.csv").open("a") as file:
        file.write("4.png,,\n3.png,unicorn,\n")
    report = check_dataset(sound)
    reasons = sorted((Path(item.path).name, item.reason) for item in report.broken)
    assert reasons[0][0] == "1.png"
    assert "truncated or damaged" in reasons[0][1]
    assert reasons[1:] == [
        ("2.png", f"there is no such image ({tmp_path}/train.csv, line 3)"),
        ("train.csv, line 6", f"the image '4.png' is there already ({tmp_path}/train.csv, line 5)"),
        ("train.csv, line 7", f"the image '3.png' is there already ({tmp_path}/train.csv, line 4)"),
        ("v.png", "mask values 4 are beyond the 3 classes (and not 255)"),
        ("w.png", "the mask is 6x8 but its image is 8x6 (after EXIF rotation)"),
    ]
    assert "6 broken" in shown(report)


def test_remarks(sound: DataSection, tmp_path: Path) -> None:
    write(
        tmp_path,
        "val",
        [
            ("v.png", "common", [0]),
            ("w.png", "", [1]),
            ("1.png", "", [0]),
            ("x/É.png", "", None),
            ("X/é.png", "", None),
        ],
    )
    remarks = {remark.text: (remark.count, remark.examples) for remark in check_dataset(sound).remarks}
    assert remarks == {
        "val: the mask shows a class that the labels lack": (1, ("w",)),
        "val: a label has no pixel in the mask": (1, ("v",)),
        "val: ids that differ only in case or in the encoding of accents": (2, ("x/É", "X/é")),
        "classes without training images, which take no part": (1, ("never",)),
        "validation images that are training images too, so that scores of them are too good": (1, ("1",)),
    }


def test_the_same_picture_under_another_name(sound: DataSection, tmp_path: Path) -> None:
    picture = Image.open(tmp_path / "3.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes())  # both common
    picture.save(tmp_path / "4.png", optimize=True)  # other tags, other bytes
    picture.save(tmp_path / "w.png")
    for name in ("1", "2"):  # of several broken files none is a copy of another
        (tmp_path / f"b{name}.png").write_text("no picture")
    with (tmp_path / "train.csv").open("a") as file:
        file.write("b1.png,common,\nb2.png,common,\n")
    remarks = {remark.text: remark.examples for remark in check_dataset(sound).remarks}
    remarks.pop("classes without training images, which take no part")
    assert remarks == {
        "train: images that show the same picture, with the same labels": ("1 = 2",),
        "train: images that show the same picture, with other labels": ("3 = 4",),
        "validation images that are training images too, so that scores of them are too good": ("w",),
    }


def test_many_examples_are_cut_short(sound: DataSection, tmp_path: Path) -> None:
    write(tmp_path, "val", [(f"v{index}.png", "", [1]) for index in range(7)])
    remark = check_dataset(sound).remarks[0]
    assert remark.count == 7
    assert remark.examples == ("v0", "v1", "v2")


def test_report_prints_and_serialises(sound: DataSection) -> None:
    report = check_dataset(sound)
    text = shown(report)
    for words in ("train masks", "common", "head", "absent", "All files can be read.", "never"):
        assert words in text
    plain = json.loads(json.dumps(report.as_json()))
    assert plain["classes"][0]["name"] == "common"
    assert plain["splits"][0]["height"] == {"minimum": 6, "median": 6.0, "maximum": 6}


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, "train", [("[red]a.png", "[bold]", None)])
    (tmp_path / "[red]a.png").write_bytes(b"")
    text = shown(check_dataset(DataSection(root=str(tmp_path))))
    assert "[bold]" in text
    assert "[red]a.png: the file is empty" in text.replace("\n", "")


def test_a_missing_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.csv: there is no such table"):
        check_dataset(DataSection(root=str(tmp_path)))


def test_a_verdict_and_what_to_do_next(sound: DataSection, tmp_path: Path) -> None:
    good = replace(check_dataset(sound), remarks=())
    assert "verdict: sound; next: sfc plan" in shown(good)
    (tmp_path / "photographs" / "cat").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "photographs" / "cat" / "a.jpg")
    (tmp_path / "photographs" / "cat" / "notes.txt").write_text("")
    remarkable = check_dataset(DataSection(format="folders", root=str(tmp_path / "photographs"), train="."))
    assert [(remark.count, remark.examples) for remark in remarkable.remarks] == [(1, (".txt (1)",))]
    assert "verdict: usable, with 1 remark above to look at" in shown(remarkable)
    (tmp_path / "photographs" / "cat" / "a.jpg").write_text("")
    broken = check_dataset(DataSection(format="folders", root=str(tmp_path / "photographs"), train="."))
    assert "verdict: not usable until these are mended" in shown(broken)
