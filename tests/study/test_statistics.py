"""Means, spreads and paired differences over seeds, against plain arithmetic."""

from __future__ import annotations

import io
import math
import statistics
from dataclasses import replace

import pytest
from rich.console import Console

from sfc.evaluate.scores import MaskScore, Score, Scores
from sfc.study.statistics import Row, rows_of
from sfc.study.tables import as_json, print_rows

NAN = float("nan")


def mask_score(what: str, fixed: float) -> MaskScore:
    groups = {"head": fixed, "medium": fixed / 2, "tail": NAN}
    return MaskScore(
        what=what,
        fixed=fixed,
        iou=[fixed, fixed],
        groups=groups,
        over_activation=groups,
        under_activation=groups,
        pixel_accuracy=0,
    )


def map_score(what: str, fixed: float, oracle: float) -> Score:
    return Score(
        **vars(mask_score(what, fixed)), background_score=0.4, oracle=oracle, oracle_background_score=0.3, curve={}
    )


def entries(cam: float, crf: float, single: float | None = None) -> list[Scores]:
    def entry(split: str, score: float, masks: list[MaskScore]) -> Scores:
        maps = [map_score("W + P", score, score + 1)]
        return Scores("x", "toy", split, 3, [], ["background", "a"], ["head"], {}, maps, [3], masks)

    val = [] if single is None else [mask_score("single", single)]
    return [entry("train", cam, [mask_score("CRF", crf)]), entry("val", cam - 5, val)]


SCORES = {
    "cam": {1: entries(40, 50, 45), 2: entries(42, 51, 46), 3: entries(41, 55)},
    "sfc": {1: entries(43, 50, 44), 2: entries(44, 53, 49), 4: entries(90, 90)},
}


@pytest.fixture
def rows() -> list[Row]:
    return rows_of(SCORES)


def found(rows: list[Row], stage: str, split: str, method: str) -> Row:
    (row,) = [row for row in rows if (row.stage, row.split, row.method) == (stage, split, method)]
    return row


def test_mean_and_spread_over_seeds(rows: list[Row]) -> None:
    row = found(rows, "CAMs", "train", "cam")
    assert row.miou.values == {1: 40, 2: 42, 3: 41}
    assert row.miou.mean == pytest.approx(41)
    assert row.miou.spread == pytest.approx(statistics.stdev([40, 42, 41]))
    assert row.oracle == pytest.approx(42)
    assert row.groups[:2] == pytest.approx((41, 20.5))
    assert math.isnan(row.groups[2])
    assert row.difference is None


def test_differences_are_paired_by_seed(rows: list[Row]) -> None:
    """Seeds 3 and 4 have one method each, and take no part."""
    row = found(rows, "CAMs", "train", "sfc")
    assert row.difference is not None
    assert row.difference.values == {1: 3, 2: 2}
    assert row.difference.mean == pytest.approx(2.5)
    assert row.difference.error == pytest.approx(statistics.stdev([3, 2]) / math.sqrt(2))
    segmenter = found(rows, "segmenter", "val", "sfc")
    assert segmenter.difference is not None
    assert segmenter.difference.values == {1: -1, 2: 3}


def test_a_class_that_no_truth_shows_is_no_part_of_a_difference() -> None:
    """It is one of the mIoU of the method that shows it, a 0 that the other does not have."""

    def scored(iou: list[float | None], fixed: float) -> list[Scores]:
        (entry,) = entries(40, 50)[:1]
        masks = replace(entry.masks[0], fixed=fixed, iou=iou, class_under_activation=[10.0, 20.0, None])
        return [replace(entry, masks=[masks])]

    rows = rows_of({"cam": {1: scored([80.0, 40.0, 0.0], 40.0)}, "sfc": {1: scored([82.0, 44.0, None], 63.0)}})
    row = found(rows, "masks", "train", "sfc")
    assert row.miou.values == {1: 63.0}
    assert row.difference is not None
    assert row.difference.values == {1: pytest.approx(3.0)}


def test_rows_are_in_the_order_of_the_stages(rows: list[Row]) -> None:
    assert list(dict.fromkeys((row.stage, row.split) for row in rows)) == [
        ("CAMs", "train"),
        ("CAMs", "val"),
        ("masks", "train"),
        ("segmenter", "val"),
    ]


def test_one_seed_has_no_spread() -> None:
    rows = rows_of({"cam": {1: entries(40, 50)}, "sfc": {1: entries(41, 50)}})
    assert math.isnan(found(rows, "CAMs", "train", "cam").miou.spread)
    row = found(rows, "CAMs", "train", "sfc")
    assert row.difference is not None
    assert math.isnan(row.difference.error)


def test_tables_fit_eighty_columns_and_say_each_number(rows: list[Row]) -> None:
    stream = io.StringIO()
    print_rows(rows, Console(file=stream, width=80))
    text = stream.getvalue()
    assert "41.0 ± 1.0" in text
    assert "+2.5 ± 0.5" in text
    assert "minus cam" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_json_has_every_value(rows: list[Row]) -> None:
    first = as_json(rows)[0]
    assert (first["stage"], first["method"]) == ("CAMs", "cam")
    assert first["miou"]["values"] == {1: 40, 2: 42, 3: 41}
