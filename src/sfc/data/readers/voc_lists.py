"""Lists of image ids in a VOCdevkit/VOC2012 folder."""

from __future__ import annotations

from pathlib import Path

from sfc.errors import DataError

AUGMENTED_MASKS = "SegmentationClassAug"
"""Folder of the masks of PASCAL VOC 2012 and of the Semantic Boundaries Dataset together; 12,031 files officially."""

OFFICIAL_TRAINAUG = 10582
"""Images of the augmented training split that the field trains on."""


def read_ids(voc_root: Path, split: str) -> list[str]:
    """Image ids of ImageSets/Segmentation/{split}.txt, one a line, in its order; blank lines are skipped.

    Raises:
        DataError: the list is missing or cannot be read.
    """
    path = voc_root / "ImageSets" / "Segmentation" / f"{split}.txt"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise DataError(path, f"the list of images cannot be read ({reason})") from error
    return [identity for line in lines if (identity := line.strip())]


def derive_trainaug(voc_root: Path) -> list[str]:
    """Ids of the augmented masks without those of the validation split, sorted: 10,582 in the official data.

    Raises:
        DataError: the folder of augmented masks or the validation list is missing or empty.
    """
    folder = voc_root / AUGMENTED_MASKS
    ids = {path.stem for path in folder.glob("*.png")}
    if not ids:
        raise DataError(folder, "has no masks, so the split trainaug cannot be derived from it")
    return sorted(ids - set(read_ids(voc_root, "val")))
