"""After a correction of the data: the classifier stays, what was made of the changed photographs goes.

A classifier of 3,000 photographs is hardly another one for three wrong tags, but their maps and masks are, and so is
the segmenter that learnt from them. What is taken away here, the next `sfc run` makes again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfc.classify.stage import CLASSIFY_NAME, CORRECTED, IMAGES, INPUT, changes, described, read_described
from sfc.data.images import mask_path
from sfc.engine.processes import make_fabric
from sfc.engine.stage import Job
from sfc.errors import ConfigError
from sfc.localize.store import cam_path
from sfc.pipeline import jobs_of, read
from sfc.refine.methods import REFINERS
from sfc.refine.stage import masks_name
from sfc.run.files import write_json
from sfc.run.folder import RunFolder
from sfc.run.lock import only_command
from sfc.run.origin import NOTE, read_note, require_same, write_note
from sfc.segment.stage import TRUTH, segmenter_name
from sfc.settings.read import write_settings

if TYPE_CHECKING:
    from sfc.config import RunConfig

MAPS = "cams/train"


@dataclass(frozen=True)
class Amended:
    """What a correction came to.

    Args:
        changed: in words, by the id of the photograph.
        removed: folders of trainings that will be made again, from the run folder on.
    """

    changed: Mapping[str, str]
    removed: tuple[str, ...]


def amend(config: RunConfig, root: Path) -> Amended:
    """Makes a run fit its corrected data again; what was killed on its way is done by the same call again.

    Args:
        config: settings of the run; only `data.exclude` may differ from those that it was trained with.
        root: the run folder.

    Returns:
        What changed, over all methods; nothing where the run fits its data.

    Raises:
        ConfigError: a classifier is not trained yet, has other settings, or the classes changed: it cannot stay.
        DataError: the data cannot be read.
        SFCError: another command is at work in the folder, or the disk is full.
    """
    folder = RunFolder(root)
    fabric = make_fabric(replace(config.machine, devices=1, nodes=1))
    changed: dict[str, str] = {}
    removed: list[str] = []
    with only_command(root):
        data = read(fabric, config, folder)
        jobs = jobs_of(fabric, config, folder)
        for job in jobs:
            job.data = data
            _require_kept(job)
        for job in jobs:
            found = changes(read_described(job.folder.classify / IMAGES), described(job.data.train))
            if found or not _fits(job):
                changed |= found
                removed += [f"{job.folder.root.name}/{name}" for name in _take_away(job, list(found))]
                _note(job, list(found))
        write_settings(folder.config, config)
    return Amended(changed, tuple(removed))


def _require_kept(job: Job) -> None:
    """Refuses a classifier that cannot stay what it is."""
    note = read_note(job.folder.classify)
    if note is None or job.finished(CLASSIFY_NAME) is None:
        raise ConfigError(f"{job.folder.classify}: no trained classifier to keep; `sfc run` trains one")
    expected = job.expected(CLASSIFY_NAME)
    if note["inputs"].get("classes") != expected["inputs"]["classes"]:
        raise ConfigError(
            f"{job.folder.classify}: the classes changed, so it has to be trained again, in another folder"
        )
    require_same(job.folder.classify / NOTE, _without_exclude(note["settings"]), _without_exclude(expected["settings"]))


def _without_exclude(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings, "data": {name: value for name, value in settings["data"].items() if name != "exclude"}}


def _fits(job: Job) -> bool:
    note, expected = read_note(job.folder.classify), job.expected(CLASSIFY_NAME)
    return note is not None and all(note[key] == expected[key] for key in ("settings", "inputs"))


def _take_away(job: Job, names: list[str]) -> list[str]:
    """Deletes what was made of some images and what learnt from it; gives the trainings among it."""
    folder = job.folder
    for name in names:
        for path in _files_of(job, name):
            path.unlink(missing_ok=True)
    for path in (folder.signs, folder.scores):
        path.unlink(missing_ok=True)
    removed = []
    for method, refiner in REFINERS.items():
        if refiner.after:  # by a network that learnt from masks
            _remove(folder.masks(method))
    if _remove(folder.relation):
        removed.append(folder.relation.name)
    # What learnt from the ground truth does not mind another tag.
    for source in (*REFINERS, *([TRUTH] if _is_outdated(job, segmenter_name(TRUTH)) else [])):
        if _remove(folder.segmenter(source)):
            removed.append(segmenter_name(source))
        _remove(folder.predictions(source, "val", "").parent)
    return removed


def _is_outdated(job: Job, name: str) -> bool:
    """Whether an artifact that these settings know was made from something else than there is now."""
    note = read_note(job.path(name)) if name in job.artifacts else None
    return note is not None and note["inputs"] != job.expected(name)["inputs"]


def _files_of(job: Job, name: str) -> Iterator[Path]:
    yield cam_path(job.folder.cams("train"), name)
    for method in REFINERS:
        yield mask_path(job.folder.masks(method), name)


def _remove(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with suppress(FileNotFoundError):  # the note first: without it nothing takes a half deleted training for one
        (folder / NOTE).unlink()
    shutil.rmtree(folder)
    return True


def _note(job: Job, names: list[str]) -> None:
    """Says of everything that stays what it belongs to now. The list of images comes last: it says that all is done."""
    note = read_note(job.folder.classify)
    assert note is not None
    trained_on = note.get(CORRECTED, {}).get("trained on", note["inputs"])
    now = job.expected(CLASSIFY_NAME)
    earlier = note.get(CORRECTED, {}).get("images", [])
    corrected = {
        "trained on": trained_on,
        "now": now["inputs"][INPUT],
        "images": sorted({*earlier, *names}),
    }
    write_note(job.folder.classify, {**now, "finished": note["finished"], CORRECTED: corrected})
    for name in (MAPS, *map(masks_name, REFINERS)):
        if read_note(job.path(name)) is not None:
            write_note(job.path(name), job.expected(name))
    write_json(job.folder.classify / IMAGES, described(job.data.train))
