"""Scores on the terminal: every number beside what it depends on."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from sfc.evaluate.scores import MaskScore, Score, Scores
from sfc.evaluate.tables import print_scores

NAN = float("nan")


def score(what: str, fixed: float, oracle: float) -> Score:
    groups = {"head": 61.4, "medium": NAN, "tail": 7.6}
    return Score(
        what=what,
        fixed=fixed,
        background_score=0.2,
        oracle=oracle,
        oracle_background_score=0.35,
        iou=[80.25, fixed, None],
        groups=groups,
        over_activation={"head": 250.0, "medium": NAN, "tail": 3.0},
        under_activation={"head": 1.0, "medium": NAN, "tail": 99.0},
        pixel_accuracy=70.0,
        curve={"background_score": [0.0, 1.0], "miou": [1.0, 2.0]},
    )


@pytest.fixture
def scores() -> Scores:
    return Scores(
        run="SFC",
        dataset="kitchen [old]",
        split="train",
        images=12,
        missing=[],
        classes=["background", "cup [red]", "spoon"],
        class_groups=["head", "absent"],
        provenance={"checkpoint": "last", "CRF": "none"},
        scores=[score("W", 41.04, 51.2), score("P", 52.33, 53.9), score("W + P", 49.0, 60.0)],
    )


def printed(*entries: Scores, width: int = 100) -> str:
    stream = io.StringIO()
    print_scores(list(entries), Console(file=stream, width=width))
    return stream.getvalue()


def cells(text: str, *wanted: str) -> list[str]:
    """The cells of the one row that has all of these."""
    rows = [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in text.splitlines() if "│" in line]
    (row,) = [row for row in rows if all(cell in row for cell in wanted)]
    return row


def test_a_row_has_the_fixed_score_and_the_oracle_apart(scores: Scores) -> None:
    text = printed(scores)
    assert cells(text, "SFC") == ["SFC", "W", "41.0", "51.2", "61/–/8", "250/–/3", "1/–/99"]
    assert cells(text, "W + P")[1:3] == ["49.0", "60.0"]
    assert "threshold searched on this ground truth" in " ".join(text.split())


def test_classes_are_shown_with_the_best_map_under_the_fixed_rule(scores: Scores) -> None:
    text = printed(scores)
    assert cells(text, "cup [red]") == ["cup [red]", "head", "52.3"]
    assert cells(text, "spoon") == ["spoon", "absent", "–"]
    assert cells(text, "background")[-1] == "80.2"


def test_variants_share_a_table_and_say_where_they_differ(scores: Scores) -> None:
    plain = replace(scores, run="plain CAM", provenance={"checkpoint": "epoch 3, CHOSEN BY", "CRF": "none"})
    text = printed(plain, scores)
    assert text.count("CAMs on kitchen [old], split train, 12 images") == 1
    assert text.count("CRF: none") == 1
    assert "checkpoint (plain CAM): epoch 3, CHOSEN BY" in text
    assert "checkpoint (SFC): last" in text
    assert cells(text, "plain CAM")[1] == "W"
    assert cells(text, "cup [red]") == ["cup [red]", "head", "52.3", "52.3"]


def test_every_split_has_its_own_tables(scores: Scores) -> None:
    text = printed(scores, replace(scores, split="val", images=5))
    assert text.index("split train, 12 images") < text.index("split val, 5 images")
    assert text.count("cup [red]") == 2


def test_images_without_cams_are_said(scores: Scores) -> None:
    assert "SFC: 2 images have no CAMs, such as [a]" in printed(replace(scores, missing=["[a]", "b"]))
    assert "have no CAMs" not in printed(scores)


@pytest.mark.parametrize("width", [80, 200])
def test_no_number_is_cut_off_on_a_narrow_terminal(scores: Scores, width: int) -> None:
    text = printed(scores, replace(scores, run="plain CAM"), width=width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_the_ways_of_a_segmenter_leave_room_for_the_name_of_the_run(scores: Scores) -> None:
    numbers = {"head": 101.0, "medium": 69.0, "tail": 78.0}
    wide = [replace(score, over_activation=numbers, under_activation=numbers) for score in scores.scores]
    ways = [mask(way, 60.0) for way in ("single", "single+crf", "multi", "multi+crf")]
    text = printed(*(replace(scores, run=run, scores=wide, masks=ways) for run in ("plain CAM", "SFC")), width=80)
    assert cells(text, "SFC", "W")[:2] == ["SFC", "W"]
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_nothing_to_print(scores: Scores) -> None:
    assert printed() == ""


def mask(what: str, fixed: float, undecided: float = 0.0) -> MaskScore:
    groups = {"head": 70.0, "medium": NAN, "tail": 8.0}
    return MaskScore(
        what=what,
        fixed=fixed,
        iou=[90.0, fixed, None],
        groups=groups,
        over_activation=groups,
        under_activation=groups,
        pixel_accuracy=90.0,
        undecided=undecided,
        boundary_iou=fixed - 20,
        boundary_f=None if undecided else 48.94,
    )


def test_masks_follow_the_maps_without_an_oracle(scores: Scores) -> None:
    refined = replace(scores, masks=[mask("relation labels", 63.21, 4.5), mask("random walk", 66.66)])
    text = printed(refined, width=80)
    assert cells(text, "random walk", "")[:3] == ["random walk", "66.7", ""]
    assert "SFC: relation labels leave 4.5 % of the pixels open; those are not scored" in text
    assert "…" not in text


def test_contours_of_masks_have_a_table_of_their_own(scores: Scores) -> None:
    refined = replace(scores, masks=[mask("relation labels", 63.21, 4.5), mask("random walk", 66.66)])
    text = printed(refined, scores, width=80)
    assert cells(text, "SFC", "relation labels") == ["SFC", "relation labels", "63.2", "43.2", "–"]
    assert cells(text, "random walk", "48.9") == ["random walk", "66.7", "46.7", "48.9"]
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "boundary" not in printed(scores)
