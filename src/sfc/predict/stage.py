"""Masks of new photographs: any number, several at once, what is finished stays."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from lightning_fabric import Fabric

from sfc.data.images import read_image
from sfc.data.records import DataSet, Record
from sfc.engine.image_work import one_by_one, unfinished, work_through
from sfc.engine.processes import prepared_for_inference
from sfc.errors import ConfigError, DataError, SFCError
from sfc.gallery.gallery import Entry, write_gallery
from sfc.kernels.compiling import compile_once
from sfc.predict.folder import CLASSES_FILE, IMAGES_FILE, read_images
from sfc.predict.outputs import GALLERY_FOLDER, Outputs, file_note
from sfc.predict.sources import Source
from sfc.refine.crf.dense import compile_kernels
from sfc.run.files import atomic_write, write_json
from sfc.run.origin import require_file


def predict(fabric: Fabric, source: Source, photographs: DataSet, outputs: Outputs) -> None:
    """Writes what is wanted of every photograph that lacks it or changed since; processes share the list by rank.

    A photograph at fault does not stop the others.

    Args:
        fabric: devices and processes.
        source: where masks come from; its network is moved to the device.
        photographs: which.
        outputs: which files, and where.

    Raises:
        ConfigError: probabilities are wanted of a source that has none, or the folder holds predictions of other
            weights, classes or settings, or masks that are none of predictions.
        DataError: the folder's list of photographs is damaged, or an id of it is another photograph now.
        SFCError: some photographs were at fault, and all others are done.
    """
    if outputs.probabilities and not source.has_probabilities:
        raise ConfigError("probabilities are to be written, but CAMs are none; only a segmenter has them")
    origin = {"classes": list(source.classes), **source.origin()}
    taken = outputs.taken()
    names = ", ".join((CLASSES_FILE, IMAGES_FILE, *(folder.name for folder in outputs.folders)))
    is_there = require_file(outputs.folder / CLASSES_FILE, origin, f"{names} in {outputs.folder}")
    if taken and not is_there:
        raise ConfigError(f"{taken}: was not written by sfc predict, which would write there; choose another --out")
    fabric.barrier()  # nobody writes before everybody has looked
    if not is_there and fabric.is_global_zero:
        write_json(outputs.folder / CLASSES_FILE, origin)
    fabric.barrier()
    _enter(outputs.folder / IMAGES_FILE, photographs)
    if source.crf:
        compile_once(fabric, compile_kernels)
    todo = unfinished(fabric, photographs.records, lambda record: outputs.finished(record.id, record.image))
    prepared_for_inference(fabric, source.net)

    def work(record: Record) -> None:
        note, image = file_note(record.image), read_image(record.image)
        strips = source.strips(record, image, outputs.probabilities)
        outputs.write(record.id, image, note, len(source.classes) + 1, strips)

    where = f"the masks of all other photographs are in {outputs.folder / 'masks'}"
    try:
        work_through(fabric, *one_by_one(todo, work), "masks", where, source.is_large, source.bytes_each(todo))
    finally:
        if fabric.is_global_zero:
            _strike(outputs.folder / IMAGES_FILE, [r.id for r in photographs.records if not outputs.has_mask(r.id)])


@contextmanager
def _list_to_change(path: Path) -> Iterator[dict[str, Path]]:
    """The list of photographs, by id, which is written when the block ends; others who change it wait for that."""
    try:
        lock = FileLock(path.with_name(f".{path.name}.lock")).acquire()
    except OSError as error:
        raise SFCError(f"{path}: cannot be written ({error.strerror})") from error
    with lock:
        images = read_images(path) if path.exists() else {}
        before = dict(images)
        yield images
        if images != before:
            _write_list(path, images)


def _enter(path: Path, photographs: DataSet) -> None:
    """Adds photographs to the list, under absolute paths."""
    with _list_to_change(path) as images:
        for record in photographs.records:
            image = Path(os.path.abspath(record.image))
            earlier = images.setdefault(record.id, image)
            if earlier.resolve() != image.resolve():
                raise DataError(record.image, f"would overwrite the predictions of {earlier}; choose another --out")


def _strike(path: Path, identities: Sequence[str]) -> None:
    """Takes from the list what has no mask after all: it must not keep the others from being exported."""
    if identities:
        with _list_to_change(path) as images:
            for identity in identities:
                images.pop(identity, None)


def _write_list(path: Path, images: Mapping[str, Path]) -> None:
    if not images:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "image"))
    writer.writerows(images.items())
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def write_page(outputs: Outputs, classes: Sequence[str]) -> Path:
    """The gallery of all photographs of a folder of predictions, those of earlier calls too.

    Raises:
        DataError: a mask or the list of photographs is damaged.
        SFCError: a file cannot be written.
    """
    images = read_images(outputs.folder / IMAGES_FILE)
    entries = [
        Entry(identity, image, outputs.mask(identity), None)
        for identity, image in images.items()
        if outputs.has_mask(identity)
    ]
    return write_gallery(outputs.folder / GALLERY_FOLDER, f"{len(entries):,} masks", entries, classes)
