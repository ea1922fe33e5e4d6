"""Masks as the archive that the PASCAL VOC 2012 evaluation server takes."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path, PurePosixPath

from sfc.data.images import image_size, read_mask
from sfc.data.palette import write_mask_png
from sfc.data.readers.voc import VOC_CLASSES
from sfc.data.readers.voc_lists import read_ids
from sfc.data.records import IGNORE
from sfc.errors import DataError
from sfc.predict.folder import CLASSES_FILE, IMAGES_FILE, Predictions
from sfc.run.files import atomic_write

_FOLDER = "results/VOC2012/Segmentation/comp6_{split}_cls"
"""comp6: trained on any data but the test set."""


def export_voc(predictions: Predictions, root: Path, archive: Path, split: str = "test") -> None:
    """Writes a tar.gz of results/VOC2012/Segmentation/comp6_SPLIT_cls/NAME.png, palette PNGs in the VOC colours.

    Whatever the server would refuse after the upload is refused here. A name is the last part of an id. The same masks
    give the same bytes.

    Args:
        predictions: the masks; one is in memory at a time, and the archive is written as they come.
        root: a VOCdevkit/VOC2012 folder with the split's list and photographs.
        archive: the file; replaced, if it is there.
        split: of ImageSets/Segmentation, each image of which must have a mask, and no other.

    Raises:
        DataError: the classes are not VOC's 20 in their order; an image of the split has no mask or a mask no image in
            it; a mask is damaged, undecided somewhere (255), or of another size than its image. Nothing is written.
        SFCError: the file cannot be written.
    """
    if predictions.classes != VOC_CLASSES:
        raise DataError(predictions.folder / CLASSES_FILE, "the classes are not the 20 of PASCAL VOC in its order")
    ids = _ids_by_name(predictions)
    _check_names(predictions, ids, root, split)
    with (
        atomic_write(archive) as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name in sorted(ids):
            png = _png(predictions.mask_path(ids[name]), root / "JPEGImages" / f"{name}.jpg")
            entry = tarfile.TarInfo(f"{_FOLDER.format(split=split)}/{name}.png")
            entry.size, entry.mode = len(png), 0o644
            tar.addfile(entry, io.BytesIO(png))


def _ids_by_name(predictions: Predictions) -> dict[str, str]:
    ids: dict[str, str] = {}
    for image_id, _ in predictions.images:
        name = PurePosixPath(image_id).name
        if name in ids:
            raise DataError(
                predictions.folder / IMAGES_FILE, f"the ids '{ids[name]}' and '{image_id}' are one name to VOC"
            )
        ids[name] = image_id
    return ids


def _check_names(predictions: Predictions, ids: dict[str, str], root: Path, split: str) -> None:
    listed = read_ids(root, split)
    missing = [name for name in listed if name not in ids]
    if missing:
        count = f"{len(missing)} of the {len(listed)} images in {split}.txt have no mask"
        raise DataError(predictions.folder / IMAGES_FILE, f"{count}, the first is '{missing[0]}'")
    surplus = sorted(set(ids) - set(listed))
    if surplus:
        count = f"{len(surplus)} of the {len(ids)} images are not in {split}.txt"
        raise DataError(predictions.folder / IMAGES_FILE, f"{count}, the first is '{surplus[0]}'")


def _png(path: Path, image: Path) -> bytes:
    mask = read_mask(path, len(VOC_CLASSES), image_size(image))
    if (mask == IGNORE).any():
        raise DataError(
            path, f"is undecided ({IGNORE}) at {int((mask == IGNORE).sum())} pixels; VOC takes classes only"
        )
    buffer = io.BytesIO()
    write_mask_png(buffer, mask)
    return buffer.getvalue()
