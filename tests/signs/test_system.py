"""Signs by class, the choice of photographs, and the verdict."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sfc.data.records import Record
from sfc.errors import DataError
from sfc.localize.store import cam_path, save_cams
from sfc.signs.system import ClassSigns, chosen_photographs, class_signs
from sfc.signs.verdict import WORSE, judged, read_verdict, write_verdict

SOUND = ClassSigns("cat", 9, level=0.2, coverage=0.2, spread=0.6, missed=0.0, agreement=0.7, doubt=0.05, edges=1.2)


@given(st.lists(st.sets(st.integers(0, 4)), max_size=60), st.integers(1, 10))
def test_every_class_has_enough_photographs_or_all_of_its_own(labels: list[set[int]], most: int) -> None:
    records = [Record(str(n), Path(f"{n}.png"), tuple(sorted(shown)), None) for n, shown in enumerate(labels)]
    chosen = chosen_photographs(records, 5, most)
    assert [record for record in records if record in chosen] == chosen
    for label in range(5):
        shown = sum(label in record.labels for record in records)
        assert sum(label in record.labels for record in chosen) >= min(shown, most)
    assert all(record.labels for record in chosen)
    assert len(chosen) <= 5 * most


def write_photographs(folder: Path, levels: list[float], label: int = 1) -> list[Record]:
    """Photographs of one class whose map is a square of 1 on a ground of that level."""
    records = []
    for number, level in enumerate(levels):
        image = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        path = folder / f"{number}.png"
        Image.fromarray(image).save(path)
        cam = np.full((24, 24), level, np.float32)
        cam[6:14, 6:14] = 1
        maps = np.stack([1.4 - cam, 2 * cam]).astype(np.float32)
        save_cams(cam_path(folder, str(number)), np.array([0, label + 1]), maps, maps, lossless=True)
        records.append(Record(str(number), path, (label,), None))
    return records


def test_the_signs_of_a_class_are_medians_over_its_photographs(tmp_path: Path) -> None:
    records = write_photographs(tmp_path, [0.0, 0.1, 0.3])
    seen = []
    (signs,) = class_signs(records, ("dog", "cat", "cow"), tmp_path, lambda: seen.append(1))
    assert (signs.name, signs.photographs, len(seen)) == ("cat", 3, 3)
    area = 64 / 576
    assert signs.level == pytest.approx(area + 0.1 * (1 - area), abs=1e-4)
    assert signs.coverage == pytest.approx(area)
    assert signs.missed == 0
    assert signs.spread == pytest.approx(0)
    assert signs.agreement == 1


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    records = write_photographs(tmp_path, [0.0])
    cam_path(tmp_path, "0").write_bytes(b"no maps")
    with pytest.raises(DataError, match=r"0\.cam"):
        class_signs(records, ("dog", "cat"), tmp_path)


def test_a_photograph_that_was_replaced_by_one_of_another_size_is_named(tmp_path: Path) -> None:
    records = write_photographs(tmp_path, [0.0])
    Image.new("RGB", (30, 24)).save(records[0].image)
    with pytest.raises(DataError, match=r"0\.cam: CAMs of \(24, 24\) pixels for an image of \(24, 30\)"):
        class_signs(records, ("dog", "cat"), tmp_path)


def test_sound_maps() -> None:
    verdict = judged([SOUND, replace(SOUND, name="dog")])
    assert verdict.soundness == pytest.approx(0.75)
    assert verdict.words == "maps look sound"


def test_flat_and_lost_classes_are_named() -> None:
    classes = [SOUND, replace(SOUND, name="sofa", level=0.6), replace(SOUND, name="chair", level=0.5, missed=0.7)]
    verdict = judged(classes)
    assert (verdict.flat, verdict.lost) == (("sofa", "chair"), ("chair",))
    assert verdict.words == (
        "maps of sofa and chair are flat, or such things fill their photographs; "
        "maps of chair are empty on half of their photographs: see docs/signs.md"
    )


def test_many_classes_are_counted() -> None:
    verdict = judged([replace(SOUND, name=f"class {n}", level=0.9) for n in range(20)])
    assert "class 7 and 12 other classes are flat" in verdict.words


def test_worse_than_the_baseline() -> None:
    baseline = judged([SOUND])
    assert "look sound" in judged([replace(SOUND, doubt=0.05 + WORSE - 0.01)], baseline).words
    worse = judged([replace(SOUND, doubt=0.05 + WORSE + 0.01)], baseline)
    assert worse.words == "they look worse than the baseline's (soundness 0.64 against 0.75): see docs/signs.md"


def test_nothing_to_look_at() -> None:
    verdict = judged([])
    assert math.isnan(verdict.soundness)
    assert "nothing can be said" in verdict.words


def test_a_verdict_survives_its_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run `sfc judge` first"):
        read_verdict(tmp_path / "signs.json")
    verdict = judged([replace(SOUND, level=0.5), replace(SOUND, name="cow", missed=0.5)])
    write_verdict(tmp_path / "signs.json", verdict)
    assert read_verdict(tmp_path / "signs.json") == verdict
    write_verdict(tmp_path / "signs.json", judged([replace(SOUND, spread=float("nan"))]))
    again = read_verdict(tmp_path / "signs.json")
    assert math.isnan(again.classes[0].spread)
    for text in ("{}", "[1]", "{", '{"classes": 3}'):
        (tmp_path / "signs.json").write_text(text)
        with pytest.raises(DataError, match="judge"):
            read_verdict(tmp_path / "signs.json")
