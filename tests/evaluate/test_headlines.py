"""The first sentences of a run: masks, then segmenter, chosen by what they are and never by their score."""

from __future__ import annotations

from pathlib import Path

from sfc.evaluate.headlines import headlines
from sfc.evaluate.scores import MaskScore, Scores, read_scores
from sfc.run.folder import RunFolder


def test_masks_first_then_the_segmenter(squares_run: Path) -> None:
    scores = [entry for name in ("cam", "sfc") for entry in read_scores(RunFolder(squares_run).system(name).scores)]
    by_key = {(e.run, e.split, s.what): s.fixed for e in scores for s in (*e.scores, *e.masks)}
    assert ("SFC", "train", "relation labels") in by_key
    masks, segmenter = headlines(scores)
    (crf,) = {what for _, split, what in by_key if split == "train" and what.startswith("CRF of ")}
    assert masks == (
        f"masks of 12 training photographs against the truth ({crf}): "
        f"plain CAM {by_key['plain CAM', 'train', crf]:.1f}, SFC {by_key['SFC', 'train', crf]:.1f} mIoU"
    )
    assert segmenter.startswith(
        "the segmenter's masks of 6 validation photographs against the truth (multi+crf): plain CAM "
    )


def test_maps_where_there_are_no_masks(squares_run: Path) -> None:
    scores = read_scores(RunFolder(squares_run).system("cam").scores)
    for entry in scores:
        entry.masks.clear()
    fused = {entry.split: entry.scores[-1].fixed for entry in scores}
    assert headlines(scores)[0] == (
        f"maps of 12 training photographs against the truth (W + P): plain CAM {fused['train']:.1f} mIoU"
    )


def test_a_class_without_truth_is_named_and_left_out_of_a_second_mean() -> None:
    """Of four classes the truth shows three; one method's masks show the fourth somewhere."""

    def scores(run: str, iou: list[float | None]) -> Scores:
        known = [value for value in iou if value is not None]
        groups = {"head": 0.0, "medium": 0.0, "tail": 0.0}
        masks = MaskScore(
            what="multi",
            fixed=sum(known) / len(known),
            iou=iou,
            groups=groups,
            over_activation=groups,
            under_activation=groups,
            pixel_accuracy=90.0,
            class_under_activation=[10.0, 40.0, 0.0, None],
        )
        classes = ["background", "dog", "cat", "tvmonitor"]
        return Scores(
            run=run,
            dataset="photos",
            split="val",
            images=9,
            missing=[],
            classes=classes,
            class_groups=["head", "medium", "tail"],
            provenance={},
            scores=[],
            masks=[masks],
        )

    plain, sfc = scores("plain CAM", [80.0, 40.0, 0.0, 0.0]), scores("SFC", [80.0, 40.0, 0.0, None])
    (sentence,) = headlines([plain, sfc])
    assert sentence == (
        "the segmenter's masks of 9 validation photographs against the truth (multi): plain CAM 30.0, SFC 40.0 mIoU; "
        "no truth shows tvmonitor, and masks that do have 0 for it: without, plain CAM 40.0, SFC 40.0"
    )
    assert headlines([sfc])[0].endswith("SFC 40.0 mIoU")

    many = scores("SFC", [80.0, 40.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    many.classes[4:] = ["bus", "train", "boat", "bird"]
    many.masks[0].class_under_activation[4:] = [None] * 4
    assert "no truth shows tvmonitor or bus or train or 2 more, and" in headlines([many])[0]


def test_without_scores_there_is_nothing_to_say() -> None:
    assert headlines([]) == []
