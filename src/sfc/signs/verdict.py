"""From the signs of a system to a sentence: are its maps sound, and if not, which classes and how."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sfc.errors import DataError
from sfc.run.files import write_json
from sfc.signs.system import ClassSigns

FLAT_LEVEL = 0.4
"""Level from which a class's maps are called flat. At the scales of their recipe, sound systems had 0.07 to 0.25 in
every class, one whose maps had gone flat 0.45 to 0.91 in eleven of twelve (docs/signs.md)."""
LOST = 0.5
"""Share of photographs with an empty region from which a class is lost."""
WORSE = 0.1
"""Soundness by which a system must fall behind the baseline to be called worse than it. Our choice: it is what another
kind of prototypes changes on one and the same network."""
MOST_NAMES = 8
ADVICE = "see docs/signs.md"


@dataclass(frozen=True)
class Verdict:
    """What the maps of a system say of themselves.

    Attributes:
        soundness: 1 − level − missed − doubt, each a mean over classes. Tells broken maps from sound ones; between
            sound ones its order was wrong on one data set of two (docs/signs.md), so no sentence shows it then.
        flat: classes whose classifier CAMs are nearly constant.
        lost: classes to which the fixed rule gives nothing on half of their photographs or more.
        words: a sentence.
        classes: the signs.
    """

    soundness: float
    flat: tuple[str, ...]
    lost: tuple[str, ...]
    words: str
    classes: tuple[ClassSigns, ...]


def judged(signs: Sequence[ClassSigns], baseline: Verdict | None = None) -> Verdict:
    """The verdict on a system.

    Args:
        signs: of its classes.
        baseline: the verdict on the run's first system, on the same photographs; None for that system itself.
    """
    if not signs:
        return Verdict(float("nan"), (), (), "no maps of photographs with tags, so nothing can be said of them", ())
    soundness = 1 - sum(entry.level + entry.missed + entry.doubt for entry in signs) / len(signs)
    flat = tuple(entry.name for entry in signs if entry.level >= FLAT_LEVEL)
    lost = tuple(entry.name for entry in signs if entry.missed >= LOST)
    faults = []
    if flat:
        faults.append(f"maps of {_names(flat)} are flat, or such things fill their photographs")
    if lost:
        faults.append(f"maps of {_names(lost)} are empty on half of their photographs")
    if baseline is not None and soundness < baseline.soundness - WORSE:
        faults.append(
            f"they look worse than the baseline's (soundness {soundness:.2f} against {baseline.soundness:.2f})"
        )
    words = f"{'; '.join(faults)}: {ADVICE}" if faults else "maps look sound"
    return Verdict(soundness, flat, lost, words, tuple(signs))


def write_verdict(path: Path, verdict: Verdict) -> None:
    """Writes it as JSON, atomically."""
    write_json(path, asdict(verdict))


def read_verdict(path: Path) -> Verdict:
    """Reads what `write_verdict` wrote.

    Raises:
        DataError: missing or damaged.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        classes = tuple(ClassSigns(**_numbers(entry)) for entry in values.pop("classes"))
        values = {**_numbers(values), "flat": tuple(values["flat"]), "lost": tuple(values["lost"])}
        return Verdict(**values, classes=classes)
    except OSError as error:
        raise DataError(path, "no such signs; run `sfc judge` first") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(path, "damaged, or not signs of this version; run `sfc judge` again") from error


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    return {name: float("nan") if value is None else value for name, value in values.items()}


def _names(names: Sequence[str]) -> str:
    """Names in a sentence; not all of them where there are many."""
    if len(names) > MOST_NAMES:
        return f"{', '.join(names[:MOST_NAMES])} and {len(names) - MOST_NAMES} other classes"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
