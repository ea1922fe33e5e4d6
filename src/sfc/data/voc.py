"""The PASCAL VOC reader: a VOCdevkit/VOC2012 folder, or one's own data in its layout."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as ET

import numpy as np

from sfc.config import DataConfig
from sfc.data.class_list import read_class_file
from sfc.data.images import PngMask, read_mask
from sfc.data.listing import Listing
from sfc.data.records import IGNORE, DataSet, Record
from sfc.data.voc_lists import AUGMENTED_MASKS, derive_trainaug, read_ids
from sfc.errors import ConfigError, DataError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_AUGMENTED_SPLIT = "trainaug"


def read_voc(config: DataConfig, split: Literal["train", "val"]) -> DataSet:
    """Reads the split that `data.train` or `data.val` names: train, val, trainval, trainaug or a list of one's own.

    Images are those of ImageSets/Segmentation/<split>.txt; where trainaug.txt is missing, trainaug is every mask of
    SegmentationClassAug that is not in val (10,582 officially). Labels are the object names in Annotations/<id>.xml
    (`data.labels_from: xml`, those marked difficult if `data.difficult`), or the classes in the mask (`masks`). Masks
    are SegmentationClassAug/<id>.png for trainaug, SegmentationClass/<id>.png otherwise; none where that folder is
    missing. Ids are VOC's own.

    Raises:
        DataError: a list, an image, an annotation or a mask is missing or damaged, an object's name is no class, or an
            id is listed twice.
        ConfigError: the split has no name.
    """
    root = Path(config.root)
    name = config.train if split == "train" else config.val
    if not name:
        raise ConfigError(f"data.{split} is empty; name a split such as train, val or trainaug")
    classes = read_class_file(root / config.classes) if config.classes else VOC_CLASSES
    ids = _split_ids(root, name)[: config.limit or None]
    files = Listing()
    images = [_image(root, identity, files) for identity in ids]
    masks = _mask_paths(root, name, ids, files)
    if config.labels_from == "masks":
        labels = _labels_from_masks(masks, classes)
    else:
        labels = [_labels_from_xml(root, identity, classes, config.difficult) for identity in ids]
    sources = (
        None if path is None else PngMask(path, len(classes), image) for path, image in zip(masks, images, strict=True)
    )
    rows = zip(ids, images, labels, sources, strict=True)
    return DataSet(root.resolve().name, split, classes, tuple(Record(*row) for row in rows))


def _split_ids(root: Path, name: str) -> list[str]:
    path = root / "ImageSets" / "Segmentation" / f"{name}.txt"
    ids = derive_trainaug(root) if name == _AUGMENTED_SPLIT and not path.exists() else read_ids(root, name)
    if not ids:
        raise DataError(path, "has no images")
    if len(set(ids)) < len(ids):
        repeated = next(identity for position, identity in enumerate(ids) if identity in ids[:position])
        raise DataError(path, f"lists the image '{repeated}' twice")
    return ids


def _image(root: Path, identity: str, files: Listing) -> Path:
    path = root / "JPEGImages" / f"{identity}.jpg"
    found = files.find(path)
    if found is None:
        raise DataError(path, "there is no such image, though the split lists it")
    return found


def _mask_paths(root: Path, name: str, ids: Iterable[str], files: Listing) -> list[Path | None]:
    folder = root / (AUGMENTED_MASKS if name == _AUGMENTED_SPLIT else "SegmentationClass")
    if not folder.is_dir():
        return [None for _ in ids]
    found = [(identity, files.find(folder / f"{identity}.png")) for identity in ids]
    missing = [identity for identity, path in found if path is None]
    if missing:
        raise DataError(folder / f"{missing[0]}.png", f"there is no such mask ({len(missing)} of {len(found)} missing)")
    return [path for _, path in found]


def _labels_from_xml(root: Path, identity: str, classes: tuple[str, ...], difficult: bool) -> tuple[int, ...]:
    path = root / "Annotations" / f"{identity}.xml"
    try:
        annotation = ET.parse(path).getroot()  # noqa: S314 - expat itself limits entity expansion
    except FileNotFoundError as error:
        raise DataError(path, "there is no such annotation; without it use data.labels_from masks") from error
    except (OSError, ET.ParseError) as error:
        raise DataError(path, f"the annotation cannot be read ({error})") from error
    labels = set()
    for item in annotation.iter("object"):
        name = (item.findtext("name") or "").strip()
        if name not in classes:
            raise DataError(path, f"the object '{name}' is not in the class list")
        if difficult or (item.findtext("difficult") or "0").strip() != "1":
            labels.add(classes.index(name))
    return tuple(sorted(labels))


def _labels_from_masks(paths: list[Path | None], classes: tuple[str, ...]) -> list[tuple[int, ...]]:
    """The classes with at least one pixel; threads, because decoding leaves the interpreter free."""

    def labels(path: Path | None) -> tuple[int, ...]:
        if path is None:
            raise ConfigError("data.labels_from is masks, but the folder of masks is missing")
        present = np.flatnonzero(np.bincount(read_mask(path, len(classes)).ravel(), minlength=IGNORE + 1))
        return tuple(int(value) - 1 for value in present if 0 < value < IGNORE)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(labels, paths))
