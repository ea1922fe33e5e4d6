"""Settings: one frozen dataclass a stage, defaults included.

A recipe (`configs/*.yaml`) holds only what differs from these defaults; `sfc run --config FILE --section.field VALUE`
overrides both. Unknown keys and ill-typed values fail. The resolved settings are saved in the run folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Coefficient = Literal["off", "exact", "official"]
Fusion = Literal["weight", "prototype", "sum"]


@dataclass(frozen=True)
class DataConfig:
    """Which images, which labels, which masks.

    Args:
        format: the reader. `table`: CSV, TSV or JSON lines with columns image, labels and optionally mask. `voc`: a
            VOCdevkit/VOC2012 folder. `coco`: a folder with annotations/instances_*.json. `folders`: one sub-folder a
            class. `synthetic`: the built-in long-tail benchmark, written into the run folder.
        root: folder that relative paths start from.
        train: training split. table: file name; voc and coco: split name (`trainaug`, `train2014`); folders: folder.
        val: validation split, same forms; none when empty.
        train_masks: the training split with masks, used for scoring only; table: file name. VOC, COCO and the
            synthetic set know their training masks without it.
        classes: file with one class name a line; a first line `background` is allowed and skipped. Empty: inferred.
        label_separator: between the labels of one image in a table.
        labels_from: VOC only: image-level labels from the XML annotations or from the segmentation masks.
        difficult: VOC only: whether objects marked difficult count as labels.
        limit: use only the first so many images of each split (0: all); for trying things out.
        head_share: share of the classes, sorted by training images, that form the head.
        tail_share: share of the classes that form the tail.
        synthetic_images: images of the most frequent class of the synthetic set.
        synthetic_seed: seed of the synthetic set.
    """

    format: Literal["table", "voc", "coco", "folders", "synthetic"] = "table"
    root: str = "."
    train: str = "train.csv"
    val: str = ""
    train_masks: str = ""
    classes: str = ""
    label_separator: str = ";"
    labels_from: Literal["xml", "masks"] = "xml"
    difficult: bool = True
    limit: int = 0
    head_share: float = 1 / 3
    tail_share: float = 1 / 3
    synthetic_images: int = 480
    synthetic_seed: int = 0
