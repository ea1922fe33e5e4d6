"""What a command that went through a run says at its end: what was made, how good, where it lies, what is next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sfc.classify.stage import corrected_since
from sfc.evaluate.headlines import headlines
from sfc.evaluate.scores import read_scores
from sfc.run.clock import in_words, read_times
from sfc.run.folder import RunFolder, SystemFolder
from sfc.segment.stage import segmenter_name, source_of
from sfc.signs.verdict import read_verdict

if TYPE_CHECKING:
    from sfc.config import RunConfig
    from sfc.evaluate.scores import Scores

MOST_NAMES = 3
"""Of corrected photographs."""


def summary(
    config: RunConfig, folder: RunFolder, scores: Sequence[Scores] = (), expected: Mapping[str, float] | None = None
) -> list[str]:
    """About five lines.

    Args:
        config: settings of the run.
        folder: of the run.
        scores: of all methods and splits; empty: what was scored earlier, if anything was.
        expected: seconds that a plan gave each stage.

    Raises:
        DataError: the signs or scores of a system are damaged.
    """
    systems = [folder.system(name) for name in config.methods]
    last = systems[-1]
    scores = scores or [entry for each in systems if each.scores.exists() for entry in read_scores(each.scores)]
    places = _places(config, last)
    corrected = sorted({name for each in systems for name in corrected_since(each.classify)})
    lines = []
    if places:
        lines.append(f"made: {', '.join(places)}{_time(folder, expected or {})}")
    lines += [f"good: {sentence}" for sentence in headlines(scores)]
    for system in systems:
        if system.signs.exists():
            name = f"{system.root.name}: " if len(systems) > 1 else ""
            truth = "" if scores else "no truth to score against; by what they say of themselves, "
            lines.append(f"maps: {name}{truth}{read_verdict(system.signs).words}")
    if corrected:
        some = ", ".join(corrected[:MOST_NAMES]) + (" …" if len(corrected) > MOST_NAMES else "")
        number = f"{len(corrected):,} photograph{'' if len(corrected) == 1 else 's'}"
        lines.append(f"kept: the classifier is from before a correction of {number} ({some})")
    lines += [f"{what}: {path}" for what, path in places.items()]
    page = folder.report / "index.html"
    if page.exists():
        lines.append(f"page: {page}")
    if (last.root / segmenter_name(source_of(config))).exists():
        lines.append(f"next: sfc predict {folder.root} NEW_PHOTOGRAPHS, or sfc export {folder.root} --model model")
    return lines


def _places(config: RunConfig, system: SystemFolder) -> dict[str, Path]:
    """Folders of the last method's masks, network and predictions, as far as there are any."""
    source, method = source_of(config), config.refine.method
    way = config.predict.ways[-1] if config.predict.ways else "single"
    found = {
        f"{method} masks of the training photographs": system.masks(method),
        "segmenter": system.segmenter(source),
        "its masks of the validation photographs": system.predictions(source, "val", way),
    }
    return {what: path for what, path in found.items() if path.is_dir()}


def _time(folder: RunFolder, expected: Mapping[str, float]) -> str:
    took = sum(seconds for stages in read_times(folder.times).values() for seconds in stages.values())
    planned = f" (planned: {in_words(sum(expected.values()))})" if expected else ""
    return f", in {in_words(took)}{planned}" if took else ""
