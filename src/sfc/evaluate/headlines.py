"""What the scores of a run say first: its masks, then its segmenter, in a sentence a split."""

from __future__ import annotations

from collections.abc import Sequence

from sfc.evaluate.scores import MaskScore, Scores
from sfc.refine.methods import REFINERS

OF_SPLIT = {"train": "masks", "val": "the segmenter's masks"}
MOST_NAMES = 3
"""Of classes without truth."""


def headlines(scores: Sequence[Scores]) -> list[str]:
    """One sentence a split: what was made last for it, by every method, at the fixed rule.

    What is shown does not depend on the scores: the last masks (not labels for a relation network, which leave pixels
    open), or the map that later stages use where there are none.

    Args:
        scores: of all methods and splits.
    """
    sentences = []
    for split in dict.fromkeys(entry.split for entry in scores):
        entries = [entry for entry in scores if entry.split == split]
        shown = [(entry.run, _last(entry)) for entry in entries]
        kind = OF_SPLIT.get(split, "masks") if all(entry.masks for entry in entries) else "maps"
        ways = ", ".join(dict.fromkeys(score.what for _, score in shown))
        values = ", ".join(f"{run} {score.fixed:.1f}" for run, score in shown)
        photographs = f"{entries[0].images:,} {'validation' if split == 'val' else 'training'} photographs"
        invented = _invented(entries[0].classes, shown)
        sentences.append(f"{kind} of {photographs} against the truth ({ways}): {values} mIoU{invented}")
    return sentences


def _invented(classes: Sequence[str], shown: Sequence[tuple[str, MaskScore]]) -> str:
    """What classes without truth do to a comparison: they count as 0 for whoever shows them, and for nobody else."""
    names = [name for index, name in enumerate(classes) if any(index in score.invented() for _, score in shown)]
    if not names:
        return ""
    if len(names) > MOST_NAMES:
        names[MOST_NAMES:] = [f"{len(names) - MOST_NAMES} more"]
    values = ", ".join(f"{run} {score.miou_of_true_classes():.1f}" for run, score in shown)
    return f"; no truth shows {' or '.join(names)}, and masks that do have 0 for it: without, {values}"


def _last(entry: Scores) -> MaskScore:
    labels = {refiner.undecided_words for refiner in REFINERS.values()}
    masks = [score for score in entry.masks if score.what not in labels]
    return masks[-1] if masks else entry.scores[-1]
