"""Kinds of files that the package reads, how each is made, read and damaged; see campaign.py."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sfc.config import load_config
from sfc.data.class_list import read_class_file
from sfc.data.images import mask_doubt, read_image, read_mask
from sfc.data.prepare.tags import prepare_tags
from sfc.data.readers import DataSection
from sfc.data.readers.read import read_dataset
from sfc.data.synthetic.benchmark import CLASSES
from sfc.data.synthetic.shapes import REFERENCE_SIZE
from sfc.engine.checkpoint import load_checkpoint
from sfc.evaluate.scores import read_scores
from sfc.localize.store import load_cams
from sfc.predict.folder import read_predictions
from sfc.run.folder import SystemFolder
from sfc.segment.model import load, save_model
from sfc.signs.verdict import read_verdict

SETTINGS_FILE = "settings.yaml"
WORDS = (
    *(b"\x00", b"\xff\xff\xff\xff", b"-1", b"1e999", b"NaN", b"null"),
    *(b"[", b"{", b'"', b",", b"\n", b"<", b"&x;", b"../"),
)
"""What is put in beside random bytes."""


def damaged(content: bytes, seed: int) -> bytes:
    """A copy with one to three faults: bytes flipped, cut out, doubled, put in, or an end that is missing."""
    chance = np.random.default_rng(seed)
    found = bytearray(content)
    for _ in range(chance.integers(1, 4)):
        place = int(chance.integers(len(found) + 1))
        length = min(len(found) - place, int(max(len(found), 1) ** chance.uniform(0, 0.7)))
        fault = chance.integers(8)
        if fault >= 5 and found:
            for _ in range(chance.integers(1, 5)):
                # Half of them become another byte of the file: text stays text.
                own = chance.random() < 0.5
                found[chance.integers(len(found))] = found[chance.integers(len(found))] if own else chance.integers(256)
        elif fault == 0:
            del found[place:]
        elif fault == 1:
            del found[place : place + length]
        elif fault == 2:
            found[place:place] = found[place : place + length]
        elif fault == 3:
            found[place:place] = WORDS[chance.integers(len(WORDS))]
        else:
            found[place : place + length] = bytes(length)
    return bytes(found)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Args:
        prepare: makes a good one in a folder, from the data set and a finished system; returns it.
        read: reads it, as a command would.
        damaged: a damaged copy, from a seed.
    """

    prepare: Callable[[Path, Path, SystemFolder], Path]
    read: Callable[[Path], Any]
    damaged: Callable[[bytes, int], bytes] = damaged


def _copied(source: Callable[[Path, SystemFolder], Path]) -> Callable[[Path, Path, SystemFolder], Path]:
    def prepare(folder: Path, data: Path, system: SystemFolder) -> Path:
        folder.mkdir(parents=True)
        found = source(data, system)
        return Path(shutil.copy(found, folder / found.name))

    return prepare


def _pictures(data: Path) -> list[Path]:
    return sorted((data / "images/train").iterdir())


def _first(folder: Path, suffix: str = "png") -> Path:
    return min(folder.rglob(f"*.{suffix}"))


def _jpeg(folder: Path, data: Path, _: SystemFolder) -> Path:
    folder.mkdir(parents=True)
    Image.open(_pictures(data)[0]).convert("RGB").resize((90, 70)).save(folder / "a.jpg", quality=90)
    return folder / "a.jpg"


def _data_set(name: str) -> Callable[[Path, Path, SystemFolder], Path]:
    def prepare(folder: Path, data: Path, _: SystemFolder) -> Path:
        shutil.copytree(data, folder)
        return folder / name

    return prepare


def _read_table(path: Path) -> Any:
    config = DataSection(root=str(path.parent), train=path.name, classes="classes.txt")
    return read_dataset(config, "train")


def _json_lines(folder: Path, data: Path, _: SystemFolder) -> Path:
    shutil.copytree(data, folder)
    rows = [
        {"image": f"images/train/{path.name}", "labels": [CLASSES[0]], "mask": f"masks/train/{path.name}"}
        for path in _pictures(data)
    ]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "train.jsonl"


def _coco(folder: Path, data: Path, _: SystemFolder) -> Path:
    shutil.copytree(data / "images/train", folder / "train")
    polygon = [[4.0, 4.0, 30.0, 4.0, 30.0, 30.0]]
    names = [path.name for path in _pictures(data)[:3]]
    rle = {"counts": [100, 50, REFERENCE_SIZE**2 - 150], "size": [REFERENCE_SIZE, REFERENCE_SIZE]}
    content = {
        "images": [
            {"id": i, "file_name": name, "height": REFERENCE_SIZE, "width": REFERENCE_SIZE}
            for i, name in enumerate(names)
        ],
        "categories": [{"id": 5, "name": "red"}, {"id": 9, "name": "blue"}],
        "annotations": [
            {"id": i, "image_id": i % 3, "category_id": (5, 9)[i % 2], "segmentation": rle if i == 3 else polygon,
             "iscrowd": int(i == 3), "area": 338.0, "bbox": [4, 4, 26, 26]}
            for i in range(5)
        ],
    }  # fmt: skip
    path = folder / "annotations" / "instances_train.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    return path


def _read_coco(path: Path) -> None:
    config = DataSection(format="coco", root=str(path.parents[1]), train="train")
    for record in read_dataset(config, "train").records:
        if record.mask is not None:
            record.mask.load()


def _voc(folder: Path, data: Path, _: SystemFolder) -> Path:
    for name in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for i, path in enumerate(_pictures(data)[:3]):
        Image.open(path).convert("RGB").save(folder / f"JPEGImages/2007_{i}.jpg")
        objects = "".join(f"<object><name>{name}</name><difficult>0</difficult></object>" for name in ("dog", "cat"))
        text = f"<annotation><filename>2007_{i}.jpg</filename>{objects}</annotation>"
        (folder / f"Annotations/2007_{i}.xml").write_text(text)
    (folder / "ImageSets/Segmentation/train.txt").write_text("2007_0\n2007_1\n2007_2\n")
    return folder / "Annotations/2007_1.xml"


def _read_voc(path: Path) -> Any:
    return read_dataset(DataSection(format="voc", root=str(path.parents[1]), train="train"), "train")


def _cvat(folder: Path, data: Path, _: SystemFolder) -> Path:
    shutil.copytree(data / "images/train", folder)
    shape = '<polygon label="dog" points="1,2;3,4"/>'
    images = "".join(f'<image id="{i}" name="{path.name}">{shape}</image>' for i, path in enumerate(_pictures(data)))
    (folder / "annotations.xml").write_text(f"<annotations><version>1.1</version>{images}</annotations>")
    return folder / "annotations.xml"


def _read_export(path: Path) -> None:
    for table in prepare_tags(path.parent):
        table.unlink()


def _model(name: str) -> Callable[[Path, Path, SystemFolder], Path]:
    def prepare(folder: Path, _: Path, system: SystemFolder) -> Path:
        from sfc.predict.models import open_model

        save_model(open_model(str(system.root.parent)), folder)
        return folder / name

    return prepare


def _predictions(name: str) -> Callable[[Path, Path, SystemFolder], Path]:
    def prepare(folder: Path, data: Path, system: SystemFolder) -> Path:
        shutil.copytree(system.masks("crf"), folder / "masks")
        rows = [f"images/train/{path.stem},{path}" for path in _pictures(data)]
        (folder / "images.csv").write_text("\n".join(["id,image", *rows]) + "\n")
        (folder / "predictions.json").write_text(json.dumps({"classes": list(CLASSES)}))
        return folder / name

    return prepare


def _read_settings(path: Path) -> Any:
    config = load_config([path])
    return replace(config, seed=config.seed)


KINDS: dict[str, Kind] = {
    "JPEG": Kind(_jpeg, lambda path: (read_image(path), read_image(path, 32))),
    "PNG": Kind(_copied(lambda data, _: _pictures(data)[0]), read_image),
    "mask": Kind(
        _copied(lambda _, system: _first(system.masks("crf"))),
        lambda path: (read_mask(path, len(CLASSES)), mask_doubt(path)),
    ),
    "CSV table": Kind(_data_set("train_with_masks.csv"), _read_table),
    "JSON lines": Kind(_json_lines, _read_table),
    "class list": Kind(_data_set("classes.txt"), read_class_file),
    "COCO": Kind(_coco, _read_coco),
    "VOC annotation": Kind(_voc, _read_voc),
    "CVAT export": Kind(_cvat, _read_export),
    "recipe": Kind(_data_set(SETTINGS_FILE), _read_settings),
    "CAMs": Kind(
        _copied(lambda _, system: _first(system.cams("train"), "cam")),
        lambda path: [np.isfinite(maps).all() for maps in load_cams(path)],
    ),
    "checkpoint": Kind(_copied(lambda _, system: system.classify / "checkpoint.pt"), load_checkpoint),
    "model weights": Kind(_model("model.safetensors"), lambda path: load(path.parent)),
    "model settings": Kind(_model("config.json"), lambda path: load(path.parent)),
    "predictions": Kind(_predictions("predictions.json"), lambda path: read_predictions(path.parent)),
    "photograph list": Kind(_predictions("images.csv"), lambda path: read_predictions(path.parent)),
    "scores": Kind(_copied(lambda _, system: system.scores), read_scores),
    "signs": Kind(_copied(lambda _, system: system.signs), read_verdict),
}
"""By name."""
