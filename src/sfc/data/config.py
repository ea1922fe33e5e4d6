"""Settings of a data set that no reader has for itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sfc.settings.limits import Limits, NaturalNumber

Split = Literal["train", "val", "train_masks"]
"""What a reader is asked for: training images, validation images, training images with masks."""


def kind_of(split: Split) -> Literal["train", "val"]:
    """What images of a split are for: training images with masks are training images."""
    return "val" if split == "val" else "train"


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
        exclude: table with the column `image`: training images that take no part, by path or id, such as a gallery
            saves them. Empty: none.
        limit: use only the first so many images of each split (0: all); for trying things out.
        group_shares: shares of the classes, sorted by training images, that form head and tail.
    """

    format: str = "table"
    root: str = "."
    train: str = "train.csv"
    val: str = ""
    train_masks: str = ""
    classes: str = ""
    exclude: str = ""
    limit: NaturalNumber = 0
    group_shares: Annotated[tuple[float, float], Limits(0, 1)] = (1 / 3, 1 / 3)

    def named(self, split: Split) -> str:
        """The file, folder or name of a split; empty where the settings name none."""
        name: str = getattr(self, split)
        return name
