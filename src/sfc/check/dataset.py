"""Is a data set sound? Every image and mask is read once; all that is wrong is listed, and the long tail is shown."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from sfc.check.duplicates import duplicates, picture_digest, shared
from sfc.data.config import DataConfig
from sfc.data.groups import Group, class_groups
from sfc.data.images import read_image
from sfc.data.readers.folders import passed_over
from sfc.data.readers.read import read_dataset, read_training_masks
from sfc.data.records import IGNORE, DataSet, Record
from sfc.errors import DataError

_EXAMPLES = 3


@dataclass(frozen=True)
class Broken:
    """A file, or a line of a table, that no stage could use."""

    path: str
    reason: str


@dataclass(frozen=True)
class Remark:
    """Something that is allowed but seldom meant, how often it occurs, and where, a few times."""

    text: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """Of one number over all readable images."""

    minimum: float
    median: float
    maximum: float


@dataclass(frozen=True)
class SplitReport:
    """One split.

    Args:
        split: `train`, `val`, or `train masks` for the masks that belong to training images.
        images: how many.
        negatives: those without labels.
        masks: those with a mask.
        labels: labels of an image on average.
        height: of the images in pixels; None where images were not decoded in this split.
        width: likewise.
        sizes: different sizes, each an (height, width) pair.
    """

    split: str
    images: int
    negatives: int
    masks: int
    labels: float
    height: Range | None
    width: Range | None
    sizes: int


@dataclass(frozen=True)
class ClassReport:
    """One class: training images that show it, its group, its distribution coefficient, validation images."""

    name: str
    train: int
    group: Group
    coefficient: float
    val: int


@dataclass(frozen=True)
class CheckReport:
    """All that `check_dataset` found.

    Args:
        name: of the data set.
        format: the reader.
        splits: sizes and counts.
        classes: sorted by training images, the most frequent first.
        broken: what must be mended; empty for a sound data set.
        remarks: what deserves a look.
    """

    name: str
    format: str
    splits: tuple[SplitReport, ...]
    classes: tuple[ClassReport, ...]
    broken: tuple[Broken, ...]
    remarks: tuple[Remark, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values, for a JSON file."""
        return asdict(self)


@dataclass(frozen=True)
class _Finding:
    """What reading one image and its mask showed."""

    size: tuple[int, int] | None = None
    untagged: tuple[int, ...] = ()
    unseen: tuple[int, ...] = ()
    fault: DataError | None = None
    picture: bytes = b""


def check_dataset(config: DataConfig, batch: int = 16, draws: int = 4) -> CheckReport:
    """Reads every file of every split that the settings name.

    Args:
        config: the data set.
        batch: images of a training step, for the distribution coefficient.
        draws: images that the bank adds to a step, for the distribution coefficient.

    Raises:
        DataError: what leaves nothing to check, such as a missing table or class list.
        ConfigError: settings that fit no data set.
    """
    faults: list[DataError] = []
    train = read_dataset(config, "train", faults.append)
    val = read_dataset(config, "val", faults.append) if config.val else None
    scoring = read_training_masks(config, train, faults.append) if config.train_masks else None
    splits, remarks = [], []
    pictures: dict[str, dict[str, bytes]] = {}
    for name, dataset in (("train", train), ("train masks", scoring), ("val", val)):
        if dataset is None:
            continue
        findings = _read_all(name, dataset, decode=dataset is not scoring)
        faults += [finding.fault for finding in findings if finding.fault is not None]
        splits.append(_split_report(name, dataset, findings))
        remarks += _mask_remarks(name, dataset, findings) + _id_remarks(name, dataset)
        if dataset is not scoring:
            pairs = zip(dataset.records, findings, strict=True)
            pictures[name] = {record.id: finding.picture for record, finding in pairs if finding.picture}
            remarks += _duplicate_remarks(name, dataset, pictures[name])
    leaked = shared(pictures["train"], pictures.get("val", {}))
    remarks += [
        _absent_classes(train),
        _remark("validation images that are training images too, so that scores of them are too good", leaked),
        _passed_over(config),
    ]
    broken = {str(fault): Broken(fault.path, fault.reason) for fault in faults}
    classes = _class_reports(config, train, val, batch, draws)
    return CheckReport(
        train.name, config.format, tuple(splits), classes, tuple(broken.values()), tuple(filter(None, remarks))
    )


def _read_all(name: str, dataset: DataSet, decode: bool) -> list[_Finding]:
    """One finding an image, in order. Threads are enough: decoders leave the interpreter free."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        findings = pool.map(lambda record: _read_one(record, decode), dataset.records)
        console = Console(stderr=True)
        title = f"{name}: reading images"
        progress = track(
            findings, title, len(dataset), console=console, transient=True, disable=not console.is_terminal
        )
        return list(progress)


def _read_one(record: Record, decode: bool) -> _Finding:
    size, picture = None, b""
    try:
        if decode:
            image = read_image(record.image)
            size, picture = (image.shape[0], image.shape[1]), picture_digest(image)
        if record.mask is None:
            return _Finding(size, picture=picture)
        present = np.flatnonzero(np.bincount(record.mask.load().ravel(), minlength=IGNORE + 1))
    except DataError as fault:
        return _Finding(size, fault=fault, picture=picture)
    shown = {int(value) - 1 for value in present if 0 < value < IGNORE}
    labels = set(record.labels)
    return _Finding(size, tuple(sorted(shown - labels)), tuple(sorted(labels - shown)), picture=picture)


def _split_report(name: str, dataset: DataSet, findings: list[_Finding]) -> SplitReport:
    sizes = [finding.size for finding in findings if finding.size is not None]
    counts = [len(record.labels) for record in dataset.records]
    return SplitReport(
        split=name,
        images=len(dataset),
        negatives=counts.count(0),
        masks=len(dataset.with_masks()),
        labels=float(np.mean(counts)) if counts else 0.0,
        height=_range([height for height, _ in sizes]),
        width=_range([width for _, width in sizes]),
        sizes=len(set(sizes)),
    )


def _range(values: list[int]) -> Range | None:
    return Range(min(values), float(np.median(values)), max(values)) if values else None


def _class_reports(
    config: DataConfig, train: DataSet, val: DataSet | None, batch: int, draws: int
) -> tuple[ClassReport, ...]:
    from sfc.classify.distribution import distribution_coefficient, expected_resampling

    labels = train.label_matrix()
    counts = labels.sum(axis=0)
    resampled = expected_resampling(labels, max(1, len(train) // batch), draws)
    coefficient = distribution_coefficient(counts, resampled).tolist()
    groups = class_groups(counts, config.group_shares)
    val_counts = val.class_counts() if val is not None else np.zeros_like(counts)
    order = np.argsort(-counts, kind="stable")
    return tuple(
        ClassReport(train.classes[k], int(counts[k]), groups[k], coefficient[k], int(val_counts[k])) for k in order
    )


def _mask_remarks(name: str, dataset: DataSet, findings: list[_Finding]) -> list[Remark | None]:
    pairs = list(zip(dataset.records, findings, strict=True))
    untagged = [record.id for record, finding in pairs if finding.untagged]
    unseen = [record.id for record, finding in pairs if finding.unseen]
    return [
        _remark(f"{name}: the mask shows a class that the labels lack", untagged),
        _remark(f"{name}: a label has no pixel in the mask", unseen),
    ]


def _id_remarks(name: str, dataset: DataSet) -> list[Remark | None]:
    """Ids that some file systems cannot tell apart; such a run could not move to one of them."""
    folded = Counter(_folded(record.id) for record in dataset.records)
    alike = [record.id for record in dataset.records if folded[_folded(record.id)] > 1]
    return [_remark(f"{name}: ids that differ only in case or in the encoding of accents", alike)]


def _folded(identity: str) -> str:
    return unicodedata.normalize("NFKC", identity).casefold()


def _duplicate_remarks(name: str, dataset: DataSet, pictures: dict[str, bytes]) -> list[Remark | None]:
    alike, at_odds = duplicates(dataset.records, pictures)
    return [
        _remark(f"{name}: images that show the same picture, with the same labels", alike),
        _remark(f"{name}: images that show the same picture, with other labels", at_odds),
    ]


def _absent_classes(train: DataSet) -> Remark | None:
    absent = [name for name, count in zip(train.classes, train.class_counts(), strict=True) if count == 0]
    return _remark("classes without training images, which take no part", absent)


def _passed_over(config: DataConfig) -> Remark | None:
    """Files in class folders that are no images."""
    counts = passed_over(Path(config.root) / config.train) if config.format == "folders" else None
    if not counts:
        return None
    kinds = tuple(f"{suffix} ({count:,})" for suffix, count in counts.most_common(_EXAMPLES))
    return Remark("files are no images and were passed over", counts.total(), kinds)


def _remark(text: str, items: Iterable[str]) -> Remark | None:
    found = list(items)
    return Remark(text, len(found), tuple(found[:_EXAMPLES])) if found else None
