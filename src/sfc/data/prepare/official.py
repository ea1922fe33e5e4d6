"""From the official archives of PASCAL VOC 2012 and COCO to the folders that the readers expect.

Nothing is fetched but what the caller names, or, with `download`, the official addresses listed here. Work that is done
is skipped, so an interrupted call is continued by repeating it.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from sfc.data.palette import write_mask_png
from sfc.data.prepare.archives import Target, unpack
from sfc.data.prepare.download import fetch, file_name, is_url, verify
from sfc.data.readers.voc_lists import AUGMENTED_MASKS, OFFICIAL_TRAINAUG, derive_trainaug
from sfc.errors import ConfigError, DataError, SFCError
from sfc.run.files import atomic_write

VOC_FOLDER = "VOCdevkit/VOC2012"
DOWNLOADS = "downloads"
"""Folder below the root that fetched archives stay in; it can be removed when all is unpacked."""

VOC_ADDRESSES = (
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
)
_COCO_HOST = "http://images.cocodataset.org"

# As published with torchvision's readers. COCO publishes none; every file in its archives carries a CRC instead.
_KNOWN_MD5 = {
    "VOCtrainval_11-May-2012.tar": "6cd6e144f989b92b3379bac3b3de84fd",
    "benchmark.tgz": "82b4d87ceb2ed10f6038a1cba92111cb",
}
_COCO_SPLITS = ("train2014", "val2014", "train2017", "val2017")
_VOC_PARTS = ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets")


@dataclass(frozen=True)
class Prepared:
    """What a preparation left behind.

    Args:
        root: the folder to give to the reader as `data.root`.
        notes: sentences worth telling: counts, checksums that could not be compared, what is still missing.
    """

    root: Path
    notes: tuple[str, ...]


def coco_addresses(year: Literal["2014", "2017"]) -> tuple[str, ...]:
    """Official addresses of annotations, validation images and training images of COCO; about 20 GB together."""
    return (
        f"{_COCO_HOST}/annotations/annotations_trainval{year}.zip",
        f"{_COCO_HOST}/zips/val{year}.zip",
        f"{_COCO_HOST}/zips/train{year}.zip",
    )


def prepare_voc(
    root: Path, archives: Sequence[str] = (), checksums: Mapping[str, str] | None = None, download: bool = False
) -> Prepared:
    """Unpacks PASCAL VOC 2012 and its augmented masks into `root`/VOCdevkit/VOC2012 and lists the split trainaug.

    Args:
        root: created where needed.
        archives: paths or HTTP addresses, in any order, told apart by what is in them: VOCtrainval_11-May-2012.tar;
            SegmentationClassAug as zip or tar; the Semantic Boundaries Dataset (benchmark.tgz), whose masks are
            converted, those of VOC taking precedence.
        checksums: by file name, MD5 or SHA-256 in hexadecimal; needed where no official one is known here.
        download: also fetch VOC and the Semantic Boundaries Dataset from their official addresses.

    Raises:
        SFCError: an archive cannot be fetched, read, trusted or unpacked, or VOC itself is not among them.
    """
    archives = [*archives, *(VOC_ADDRESSES if download else ())]
    voc = root / VOC_FOLDER
    # Which masks of SBD count depends on those that VOC has.
    targets = (_voc_target, partial(_sbd_target, voc))
    notes = _unpack_all(root, archives, checksums or {}, targets, "PASCAL VOC 2012")
    _require_voc(voc)
    if not (voc / AUGMENTED_MASKS).is_dir():
        notes.append("trainaug is not there: name SegmentationClassAug.zip or benchmark.tgz of SBD to get it")
        return Prepared(voc, tuple(notes))
    _add_official_masks(voc)
    trainaug = derive_trainaug(voc)
    with atomic_write(voc / "ImageSets" / "Segmentation" / "trainaug.txt") as file:
        file.write("".join(f"{name}\n" for name in trainaug).encode())
    official = "as it should" if len(trainaug) == OFFICIAL_TRAINAUG else f"the official one has {OFFICIAL_TRAINAUG:,}"
    notes.append(f"trainaug has {len(trainaug):,} images, {official}")
    return Prepared(voc, tuple(notes))


def prepare_coco(
    root: Path,
    archives: Sequence[str] = (),
    checksums: Mapping[str, str] | None = None,
    download: Literal["", "2014", "2017"] = "",
) -> Prepared:
    """Unpacks COCO into `root`: train2014, val2014, train2017, val2017 and annotations/instances_*.json.

    Args:
        root: created where needed.
        archives: paths or HTTP addresses of the official zip files, in any order, any subset.
        checksums: by file name, MD5 or SHA-256 in hexadecimal.
        download: also fetch this year's archives from their official addresses.

    Raises:
        SFCError: an archive cannot be fetched, read, trusted or unpacked.
    """
    archives = [*archives, *(coco_addresses(download) if download else ())]
    notes = _unpack_all(root, archives, checksums or {}, (_coco_target,), "COCO 2014 or 2017")
    for split in _COCO_SPLITS:
        images, instances = (root / split).is_dir(), (root / "annotations" / f"instances_{split}.json").is_file()
        if images != instances:
            notes.append(f"{split} has {'images' if images else 'annotations'} only; name the other archive as well")
    return Prepared(root, tuple(notes))


def _unpack_all(
    root: Path,
    archives: Sequence[str],
    checksums: Mapping[str, str],
    targets: Sequence[Callable[[tuple[str, ...]], Target | None]],
    what: str,
) -> list[str]:
    """Fetches and checks all archives, and unpacks those that hold anything for the first of `targets`.

    Those that do not are then looked through for the next, and so on. Returns notes.
    """
    if not archives:
        raise ConfigError(f"sfc prepare: name the archives of {what}, or ask for the download")
    names = [file_name(archive) for archive in archives]
    unknown = sorted(set(checksums) - set(names))
    if unknown:
        raise ConfigError(f"checksum of {unknown[0]}: no archive has this name; there are {', '.join(names)}")
    notes, waiting = [], []
    with _progress() as progress:
        for archive, name in zip(archives, names, strict=True):
            expected = checksums.get(name, _KNOWN_MD5.get(name, ""))
            path = _local(archive, root, progress)
            digest = _verify(path, archive, expected, progress)
            if not expected:
                notes.append(f"{name} was not compared: no checksum is known; its SHA-256 is {digest}")
            waiting.append(path)
        for choose in targets:
            waiting = [path for path in waiting if unpack(path, root, choose, progress) == 0]
    if waiting:
        raise DataError(waiting[0], f"holds nothing of {what}")
    return notes


def _local(archive: str, root: Path, progress: Progress) -> Path:
    if is_url(archive):
        return fetch(archive, root / DOWNLOADS, progress)
    path = Path(archive)
    if not path.is_file():
        raise DataError(path, "there is no such archive")
    return path


def _verify(path: Path, archive: str, expected: str, progress: Progress) -> str:
    """As `verify`; a damaged download is removed, since fetching it again is the only cure."""
    try:
        return verify(path, expected, progress)
    except DataError as error:
        if not is_url(archive):
            raise
        path.unlink(missing_ok=True)
        raise DataError(path, f"{error.reason}; it was removed, so that the next call fetches it again") from error


def _voc_target(parts: tuple[str, ...]) -> Target | None:
    """Keeps what readers use of VOC itself, or of SegmentationClassAug."""
    if "VOC2012" in parts:
        inside = parts[parts.index("VOC2012") + 1 :]
        keep = len(inside) > 1 and inside[0] in {*_VOC_PARTS, AUGMENTED_MASKS}
        return Target("/".join((VOC_FOLDER, *inside))) if keep else None
    path = PurePosixPath(*parts)
    is_mask = path.parent.name == AUGMENTED_MASKS and path.suffix == ".png"
    return Target(f"{VOC_FOLDER}/{AUGMENTED_MASKS}/{path.name}") if is_mask else None


def _sbd_target(voc: Path, parts: tuple[str, ...]) -> Target | None:
    """Keeps SBD's class masks (cls/*.mat) of images of which VOC has none of its own."""
    path = PurePosixPath(*parts)
    if path.parent.name != "cls" or path.suffix != ".mat":
        return None
    _require_voc(voc)
    is_official = (voc / "SegmentationClass" / f"{path.stem}.png").is_file()
    return None if is_official else Target(f"{VOC_FOLDER}/{AUGMENTED_MASKS}/{path.stem}.png", _sbd_mask_to_png)


def _coco_target(parts: tuple[str, ...]) -> Target | None:
    """Images by split, and the instance annotations; captions and key points are left out."""
    path = PurePosixPath(*parts)
    folder, name = path.parent.name, path.name
    is_instances = folder == "annotations" and name.startswith("instances_") and name.endswith(".json")
    is_image = folder in _COCO_SPLITS and name.endswith(".jpg")
    return Target(f"{folder}/{name}") if is_instances or is_image else None


def _require_voc(voc: Path) -> None:
    if not (voc / "ImageSets" / "Segmentation" / "val.txt").is_file():
        raise SFCError(f"{voc}: holds no list of images yet; name VOCtrainval_11-May-2012.tar as well")


def _sbd_mask_to_png(data: bytes) -> bytes:
    """Class mask of one image of the Semantic Boundaries Dataset: MATLAB file to palette PNG."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        mask = np.asarray(loadmat(io.BytesIO(data))["GTcls"][0]["Segmentation"][0])
    except (KeyError, IndexError, TypeError, NotImplementedError, MatReadError) as error:
        raise ValueError(f"no class mask of SBD: {error}") from error
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(f"no class mask of SBD: {mask.dtype} {mask.shape}")
    buffer = io.BytesIO()
    write_mask_png(buffer, mask)
    return buffer.getvalue()


def _add_official_masks(voc: Path) -> None:
    """The augmented masks are a union: images that only VOC annotates belong to them too."""
    for source in sorted((voc / "SegmentationClass").glob("*.png")):
        path = voc / AUGMENTED_MASKS / source.name
        if not path.exists():
            with atomic_write(path) as file, open(source, "rb") as mask:
                shutil.copyfileobj(mask, file)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
