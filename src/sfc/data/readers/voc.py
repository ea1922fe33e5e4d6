"""The PASCAL VOC reader: a VOCdevkit/VOC2012 folder, or one's own data in its layout."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree as ET

import numpy as np

from sfc.data.class_list import read_class_file
from sfc.data.config import DataConfig, Split, kind_of
from sfc.data.faults import OnFault, refuse
from sfc.data.images import PngMask, read_mask
from sfc.data.listing import Listing
from sfc.data.readers.reader import Reader
from sfc.data.readers.voc_lists import AUGMENTED_MASKS, derive_trainaug, read_ids
from sfc.data.records import IGNORE, DataSet, Record
from sfc.errors import ConfigError, DataError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_AUGMENTED_SPLIT = "trainaug"


@dataclass(frozen=True)
class VocSettings:
    """VOC.

    Args:
        labels_from: image-level labels from the XML annotations (`xml`; `xml-without-difficult` leaves out objects that
            are marked difficult), or from the segmentation `masks`.
    """

    labels_from: Literal["xml", "xml-without-difficult", "masks"] = "xml"


class VocReader(Reader):
    """Reads VOC folders, see `read_voc`."""

    settings = VocSettings

    def read(self, config: DataConfig, split: Split, on_fault: OnFault) -> DataSet:
        """See `Reader`."""
        return read_voc(config, split, on_fault)

    def detect(self, folder: Path) -> dict[str, Any] | None:
        """ImageSets/Segmentation, also as VOCdevkit/VOC2012 below."""
        for root in (folder, folder / "VOC2012", folder / "VOCdevkit" / "VOC2012"):
            lists = root / "ImageSets" / "Segmentation"
            if lists.is_dir():
                augmented = (lists / "trainaug.txt").is_file() or (root / AUGMENTED_MASKS).is_dir()
                splits = {"train": "trainaug", "train_masks": "train"} if augmented else {"train": "train"}
                val = {"val": "val"} if (lists / "val.txt").is_file() else {}
                return {"format": "voc", "root": str(root), **splits, **val}
        return None


def read_voc(config: DataConfig, split: Split, on_fault: OnFault = refuse) -> DataSet:
    """Reads the split that `data.train` or `data.val` names: train, val, trainval, trainaug or a list of one's own.

    Images are those of ImageSets/Segmentation/<split>.txt; where trainaug.txt is missing, trainaug is every mask of
    SegmentationClassAug that is not in val (10,582 officially). Labels are the object names in Annotations/<id>.xml
    or the classes in the mask, as `data.voc.labels_from` says. Masks
    are SegmentationClassAug/<id>.png for trainaug, SegmentationClass/<id>.png otherwise; none where that folder is
    missing. Ids are VOC's own.

    Args:
        config: where the folder lies.
        split: which one to read.
        on_fault: gets the fault of an image, which is then left out.

    Raises:
        DataError: a list, an image, an annotation or a mask is missing or damaged, an object's name is no class, or an
            id is listed twice.
        ConfigError: the split has no name.
    """
    root = Path(config.root)
    name = config.named(split)
    if not name:
        raise ConfigError(f"data.{split} is empty; name a split such as train, val or trainaug")
    classes = read_class_file(root / config.classes) if config.classes else VOC_CLASSES
    reader = _Reader(root, name, classes, config)
    ids = _split_ids(root, name)[: (config.limit if split != "train_masks" else 0) or None]
    records = []
    # Threads help where masks are decoded, which leaves the interpreter free.
    with ThreadPoolExecutor() as pool:
        for outcome in pool.map(reader.record_or_fault, ids):
            if isinstance(outcome, DataError):
                on_fault(outcome)
            else:
                records.append(outcome)
    return DataSet(root.resolve().name, kind_of(split), classes, tuple(records))


class _Reader:
    """What it takes to make a record of one id."""

    def __init__(self, root: Path, split: str, classes: tuple[str, ...], config: DataConfig) -> None:
        settings: VocSettings = config.voc  # type: ignore[attr-defined]
        self.root, self.classes, self.labels_from = root, classes, settings.labels_from
        self.files = Listing()
        folder = root / (AUGMENTED_MASKS if split == _AUGMENTED_SPLIT else "SegmentationClass")
        self.masks = folder if folder.is_dir() else None
        if self.masks is None and self.labels_from == "masks":
            raise ConfigError(f"data.voc.labels_from is masks, but the folder {folder} is missing")

    def record_or_fault(self, identity: str) -> Record | DataError:
        try:
            return self._record(identity)
        except DataError as fault:
            return fault

    def _record(self, identity: str) -> Record:
        image = self._file(self.root / "JPEGImages" / f"{identity}.jpg", "image")
        mask = None
        if self.masks is not None:
            mask = PngMask(self._file(self.masks / f"{identity}.png", "mask"), len(self.classes), image)
        if self.labels_from == "masks" and mask is not None:
            labels = _labels_in_mask(mask.path, self.classes)
        else:
            path = self.root / "Annotations" / f"{identity}.xml"
            labels = _labels_in_xml(path, self.classes, self.labels_from == "xml")
        return Record(identity, image, labels, mask)

    def _file(self, path: Path, kind: str) -> Path:
        found = self.files.find(path)
        if found is None:
            raise DataError(path, f"there is no such {kind}, though the split lists it")
        return found


def _split_ids(root: Path, name: str) -> list[str]:
    path = root / "ImageSets" / "Segmentation" / f"{name}.txt"
    ids = derive_trainaug(root) if name == _AUGMENTED_SPLIT and not path.exists() else read_ids(root, name)
    if not ids:
        raise DataError(path, "has no images")
    if len(set(ids)) < len(ids):
        repeated = next(identity for position, identity in enumerate(ids) if identity in ids[:position])
        raise DataError(path, f"lists the image '{repeated}' twice")
    return ids


def _labels_in_xml(path: Path, classes: tuple[str, ...], difficult: bool) -> tuple[int, ...]:
    try:
        annotation = ET.parse(path).getroot()  # noqa: S314 - expat itself limits entity expansion
    except FileNotFoundError as error:
        raise DataError(path, "there is no such annotation; without it use data.voc.labels_from masks") from error
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


def _labels_in_mask(path: Path, classes: tuple[str, ...]) -> tuple[int, ...]:
    """The classes with at least one pixel."""
    present = np.flatnonzero(np.bincount(read_mask(path, len(classes)).ravel(), minlength=IGNORE + 1))
    return tuple(int(value) - 1 for value in present if 0 < value < IGNORE)
