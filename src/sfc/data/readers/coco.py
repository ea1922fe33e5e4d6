"""The COCO reader: instances_*.json of 2014, 2017 or one's own data in that format."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sfc.data.class_list import check_classes
from sfc.data.config import DataConfig, Split, kind_of
from sfc.data.faults import OnFault, refuse
from sfc.data.images import image_size
from sfc.data.listing import Listing, record_id
from sfc.data.readers.coco_json import Item, iterate_items, read_item
from sfc.data.readers.coco_regions import area, pixels, run_lengths
from sfc.data.readers.reader import Reader
from sfc.data.records import IGNORE, DataSet, Record
from sfc.errors import ConfigError, DataError

_PREFIX, _SUFFIX = "instances_", ".json"


class CocoReader(Reader):
    """Reads COCO annotations, see `read_coco`."""

    settings = None

    def read(self, config: DataConfig, split: Split, on_fault: OnFault) -> DataSet:
        """See `Reader`."""
        return read_coco(config, split, on_fault)

    def detect(self, folder: Path) -> dict[str, Any] | None:
        """instances_*.json, also in annotations/."""
        files = [*(folder / "annotations").glob(f"{_PREFIX}*{_SUFFIX}"), *folder.glob(f"{_PREFIX}*{_SUFFIX}")]
        splits = sorted(file.name.removeprefix(_PREFIX).removesuffix(_SUFFIX) for file in files)
        train = next((split for split in splits if split.startswith("train")), splits[0] if splits else "")
        if not train:
            return None
        val = f"val{train.removeprefix('train')}"
        return {"format": "coco", "root": str(folder), "train": train, **({"val": val} if val in splits else {})}


def read_coco(config: DataConfig, split: Split, on_fault: OnFault = refuse) -> DataSet:
    """Reads the split that `data.train` or `data.val` names, such as train2014.

    Annotations are annotations/instances_<split>.json (or instances_<split>.json) below `data.root`, images lie in
    <split>, images/<split> or images. Classes are the categories in the order of their ids, gaps closed. Labels are
    the categories of an image's annotations; crowd regions give none, save in a category that has nothing else: tools
    write what was painted with a brush as crowds. Images without annotations are negatives. Ids are file names without
    suffix. Masks are built from the annotations when asked for, see `CocoMask`; an image with an object that has a box
    and no outline has labels and no mask.

    Args:
        config: where the files lie.
        split: which one to read.
        on_fault: gets the fault of an image, which is then left out.

    Raises:
        DataError: the annotation file or an image is missing or damaged; an annotation names an unknown image or
            category; two images have the same name.
        ConfigError: the split has no name.
    """
    root = Path(config.root)
    name = config.named(split)
    limit = config.limit if split != "train_masks" else 0
    if not name:
        raise ConfigError(f"data.{split} is empty; name a split such as train2014")
    path = _annotation_file(root, name)
    images, annotations, categories = _read(path)
    ranks = {identity: rank for rank, identity in enumerate(sorted(categories))}
    classes = check_classes([categories[identity] for identity in sorted(categories)], path)
    _check_references(path, annotations, images, ranks)
    folder = _image_folder(root, name)
    files = Listing()
    records: dict[str, Record] = {}
    outlined = {piece.category for pieces in annotations.values() for piece in pieces if not piece.crowd}
    for identity, image in list(images.items())[: limit or None]:
        found = files.find(folder / image.name)
        if found is None:
            on_fault(DataError(folder / image.name, f"there is no such image, though {path.name} lists it"))
            continue
        pieces = [
            replace(piece, crowd=piece.crowd and piece.category in outlined) for piece in annotations.get(identity, ())
        ]
        labels = sorted({ranks[piece.category] for piece in pieces if not piece.crowd})
        values = tuple(IGNORE if piece.crowd else ranks[piece.category] + 1 for piece in pieces)
        spans = tuple((piece.start, piece.stop) for piece in pieces)
        mask = None
        if all(piece.outlined or piece.crowd for piece in pieces):
            mask = CocoMask(path, found, (image.height, image.width), values, spans)
        record = Record(record_id(folder, found), found, tuple(labels), mask)
        if record.id in records:
            other = records[record.id].image.name
            on_fault(DataError(path, f"lists the images '{other}' and '{image.name}', which get the same id"))
        else:
            records[record.id] = record
    if not images:
        raise DataError(path, "has no images")
    return DataSet(root.resolve().name, kind_of(split), classes, tuple(records.values()))


@dataclass(frozen=True)
class CocoMask:
    """A semantic mask built from instance annotations, which stay in the annotation file until they are needed.

    Crowd regions are painted first, as 255; then the objects from the largest to the smallest, so that a tie lies on
    its shirt and not under it. (Annotations overlap and COCO gives them no order in depth.)

    Args:
        annotations: the annotation file.
        image: the image file, whose size must be that of the annotations.
        size: height and width that the annotations were drawn at.
        values: mask value of each annotation, 1 + class index, or 255 for a crowd region.
        spans: first byte and byte after the last of each annotation in the file.
    """

    annotations: Path
    image: Path
    size: tuple[int, int]
    values: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    def load(self) -> np.ndarray:
        """uint8 [H, W]: 0 background, 1 + class index, 255 ignored.

        Raises:
            DataError: the image cannot be read or has another size, an annotation is malformed, or the file changed.
        """
        actual = image_size(self.image)
        if actual != self.size:
            expected = f"{self.size[1]}x{self.size[0]}"
            raise DataError(self.image, f"the image is {actual[1]}x{actual[0]}, but its annotations say {expected}")
        regions = [(value, self._region(*span)) for value, span in zip(self.values, self.spans, strict=True)]
        regions.sort(key=lambda item: (item[0] != IGNORE, -area(item[1])))
        mask = np.zeros(self.size, dtype=np.uint8, order="F")  # The order of run lengths.
        for value, region in regions:
            np.copyto(mask, value, where=pixels(region, self.size[0]))
        return np.ascontiguousarray(mask)

    def _region(self, start: int, stop: int) -> list[int]:
        """Run lengths of one annotation."""
        annotation = read_item(self.annotations, start, stop)
        try:
            return run_lengths(annotation.get("segmentation"), *self.size)
        except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
            place = f"{self.annotations}, annotation {annotation.get('id')}"
            raise DataError(place, f"its segmentation is malformed ({error})") from error


@dataclass(frozen=True)
class _Image:
    name: str
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """Where an annotation is in the file, and what it shows."""

    category: int
    crowd: bool
    outlined: bool
    start: int
    stop: int


def _read(path: Path) -> tuple[dict[int, _Image], dict[int, list[_Piece]], dict[int, str]]:
    """Images by id, annotations by image id, category names by id."""
    images: dict[int, _Image] = {}
    annotations: dict[int, list[_Piece]] = defaultdict(list)
    categories: dict[int, str] = {}
    for item in iterate_items(path):
        try:
            if item.key == "images":
                _add(images, item, _Image(str(item.value["file_name"]), *_size(item.value)))
            elif item.key == "categories":
                _add(categories, item, str(item.value["name"]))
            else:
                crowd = bool(item.value.get("iscrowd", 0))
                outlined = _is_outlined(item.value.get("segmentation"))
                piece = _Piece(int(item.value["category_id"]), crowd, outlined, item.start, item.stop)
                annotations[int(item.value["image_id"])].append(piece)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(path, f"one of its {item.key} is malformed at byte {item.start} ({error!r})") from error
    return images, annotations, categories


def _is_outlined(segmentation: Any) -> bool:
    """Whether there is anything but a box; what is there may still be malformed."""
    return segmentation not in (None, [], [[]])


def _add(entries: dict[int, Any], item: Item, value: Any) -> None:
    identity = int(item.value["id"])
    if identity in entries:
        raise ValueError(f"the id {identity} is there already")
    entries[identity] = value


def _size(image: dict[str, Any]) -> tuple[int, int]:
    return int(image["height"]), int(image["width"])


def _check_references(
    path: Path, annotations: dict[int, list[_Piece]], images: dict[int, _Image], ranks: dict[int, int]
) -> None:
    stray = next((identity for identity in annotations if identity not in images), None)
    if stray is not None:
        raise DataError(path, f"has an annotation of the image {stray}, which it does not list")
    used = {piece.category for pieces in annotations.values() for piece in pieces}
    if not used <= ranks.keys():
        raise DataError(path, f"has an annotation of the category {min(used - ranks.keys())}, which it does not list")


def _annotation_file(root: Path, name: str) -> Path:
    usual = root / "annotations" / f"{_PREFIX}{name}{_SUFFIX}"
    beside = root / usual.name
    return beside if beside.is_file() and not usual.is_file() else usual


def _image_folder(root: Path, name: str) -> Path:
    candidates = (root / name, root / "images" / name, root / "images")
    return next((folder for folder in candidates if folder.is_dir()), candidates[0])
