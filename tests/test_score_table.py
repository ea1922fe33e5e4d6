"""The tables that a run prints."""

from __future__ import annotations

import io
import math

from rich.console import Console

from sfc.evaluate import Score, Scores
from sfc.score_table import print_scores

NAN = math.nan


def score(what: str, fixed: float, oracle: float) -> Score:
    return Score(
        what=what,
        fixed=fixed,
        background_score=0.4,
        oracle=oracle,
        oracle_background_score=0.7,
        iou=[80.0, fixed, None],
        groups={"head": fixed, "medium": NAN, "tail": NAN},
        over_activation={"head": 31.0, "medium": NAN, "tail": NAN},
        under_activation={"head": 12.0, "medium": NAN, "tail": NAN},
        pixel_accuracy=90.0,
        curve={"background_score": [0.4], "miou": [fixed]},
    )


def entry(run: str, split: str, fixed: float, missing: list[str], checkpoint: str) -> Scores:
    return Scores(
        run=run,
        dataset="kitchen [2019]",
        split=split,
        images=7,
        missing=missing,
        classes=["background", "[red]cup", "spoon"],
        class_groups=["head", "absent"],
        provenance={"CRF": "none", "checkpoint": checkpoint},
        scores=[score("W", fixed, 61.3), score("P", fixed - 5, 50.2), score("W + P", fixed - 1, 60.8)],
    )


def printed(scores: list[Scores]) -> str:
    stream = io.StringIO()
    print_scores(scores, Console(file=stream, width=80))
    return stream.getvalue()


def test_two_runs_in_one_table_a_split() -> None:
    scores = [entry(run, split, 47.7, [], "last") for split in ("train", "val") for run in ("plain", "SFC")]
    text = printed(scores)
    assert text.count("CAMs on kitchen [2019], split train, 7 images") == 1
    assert text.count("CAMs on kitchen [2019], split val, 7 images") == 1
    assert text.count("CRF: none") == 2
    row = next(line for line in text.splitlines() if "plain" in line and "W" in line and "47.7" in line)
    assert row.index("47.7") < row.index("61.3")
    assert "48/–/–" in row
    assert "31/–/–" in row
    assert "searched on" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_class_that_occurs_nowhere_and_names_that_look_like_markup() -> None:
    text = printed([entry("[bold]SFC", "train", 47.7, [], "last")])
    assert "[red]cup" in text
    assert "[bold]SFC" in text
    spoon = next(line for line in text.splitlines() if "spoon" in line)
    assert "absent" in spoon
    assert "–" in spoon


def test_differences_and_gaps_are_said_by_run() -> None:
    runs = [entry("plain", "train", 40.0, [], "last"), entry("SFC", "train", 50.0, ["a/b", "c"], "ground truth")]
    text = printed(runs)
    assert "checkpoint (plain): last" in text
    assert "checkpoint (SFC): ground truth" in text
    assert "SFC: 2 images have no CAMs, such as a/b" in text
