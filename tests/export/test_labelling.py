"""Outlines for LabelMe and CVAT: filled, they are nearly the mask, with far fewer points than its pixel edges have."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from sfc.cli import main
from sfc.data.images import write_mask
from sfc.data.prepare.tags import prepare_tags
from sfc.errors import DataError, SFCError
from sfc.export.labelling import TOLERANCE, export_cvat, export_labelme
from sfc.export.polygons import region_polygons, simplified
from sfc.predict.folder import Predictions

Write = Callable[..., Predictions]


def blobs(seed: int = 0, height: int = 120, width: int = 160) -> np.ndarray:
    """Two ellipses, one of them with a hole, and undecided pixels."""
    y, x = np.mgrid[:height, :width] + 0.5
    mask = np.zeros((height, width), np.uint8)
    random = np.random.default_rng(seed)
    for value, centre in ((1, (0.3, 0.3)), (3, (0.65, 0.65))):
        radius = random.uniform(20, 34, 2)
        distance = ((y - centre[0] * height) / radius[0]) ** 2 + ((x - centre[1] * width) / radius[1]) ** 2
        mask[distance < 1] = value
        if value == 1:
            mask[distance < 0.1] = 0
    mask[-4:] = 255
    return mask


def filled(polygons: list[tuple[int, np.ndarray]], size: tuple[int, int]) -> np.ndarray:
    """As LabelMe and CVAT do: by Pillow, whose points are pixel centres."""
    picture = Image.new("L", (size[1], size[0]))
    draw = ImageDraw.Draw(picture)
    for value, points in polygons:
        draw.polygon([tuple(point) for point in points - 0.5], fill=value)
    return np.asarray(picture)


def overlap(found: np.ndarray, mask: np.ndarray, value: int) -> float:
    return float(((found == value) & (mask == value)).sum() / ((found == value) | (mask == value)).sum())


def test_labelme(write: Write, tmp_path: Path) -> None:
    masks = {"a": blobs(), "deep/ü b": np.zeros((5, 6), np.uint8)}
    export_labelme(write(tmp_path, masks), tmp_path / "out")
    content = json.loads((tmp_path / "out" / "a.json").read_text())
    assert (content["imageHeight"], content["imageWidth"], content["imageData"]) == (120, 160, None)
    assert (tmp_path / "out" / content["imagePath"]).resolve() == (tmp_path / "photos" / "a.jpg").resolve()
    assert {shape["label"] for shape in content["shapes"]} == {"cat", "cow"}
    values = {"cat": 1, "cow": 3}
    found = filled([(values[s["label"]], np.array(s["points"])) for s in content["shapes"]], (120, 160))
    assert overlap(found, masks["a"], 1) > 0.93
    assert overlap(found, masks["a"], 3) > 0.93
    assert sum(len(shape["points"]) for shape in content["shapes"]) < 120
    nothing = json.loads((tmp_path / "out" / "deep" / "ü b.json").read_text())
    assert nothing["shapes"] == []


def test_what_labelme_gets_is_read_as_tags(write: Write, tmp_path: Path) -> None:
    predictions = write(tmp_path, {"a": blobs(), "b": np.zeros((5, 6), np.uint8)})
    export_labelme(predictions, tmp_path / "photos")
    prepare_tags(tmp_path / "photos")
    assert (tmp_path / "photos" / "train.csv").read_text() == "image,labels\na.jpg,cat;cow\nb.jpg,\n"


def test_files_of_somebody_else_stay(write: Write, tmp_path: Path) -> None:
    predictions = write(tmp_path, {"a": blobs(), "b": blobs(1)})
    export_labelme(predictions, tmp_path / "out")
    export_labelme(predictions, tmp_path / "out")
    (tmp_path / "out" / "b.json").write_text('{"shapes": [], "imagePath": "b.jpg"}')
    (tmp_path / "out" / "a.json").unlink()
    with pytest.raises(SFCError, match=r"b\.json: was not written by an export"):
        export_labelme(predictions, tmp_path / "out")
    assert not (tmp_path / "out" / "a.json").exists()


@pytest.mark.parametrize("change", ["a point", "a label", "a flag", "no shape", "the mark of earlier versions"])
def test_outlines_that_were_corrected_by_hand_stay(change: str, write: Write, tmp_path: Path) -> None:
    predictions = write(tmp_path, {"a": blobs()})
    export_labelme(predictions, tmp_path / "out")
    path = tmp_path / "out" / "a.json"
    content = json.loads(path.read_text())
    if change == "a point":
        content["shapes"][0]["points"][0][0] += 0.5
    elif change == "a label":
        content["shapes"][0]["label"] = "dog"
    elif change == "a flag":
        content["flags"]["looked at"] = True
    elif change == "no shape":
        content["shapes"].clear()
    else:
        content["writtenBy"] = "sfc"
    path.write_text(json.dumps(content))
    with pytest.raises(SFCError, match=r"a\.json: .* or was changed since; name another folder"):
        export_labelme(predictions, tmp_path / "out")
    assert json.loads(path.read_text()) == content


def test_cvat(write: Write, tmp_path: Path) -> None:
    masks = {"a": blobs(), "deep/ü b": np.zeros((5, 6), np.uint8)}
    export_cvat(write(tmp_path, masks), tmp_path / "out.xml")
    root = ET.parse(tmp_path / "out.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert [label.text for label in root.findall("meta/task/labels/label/name")] == ["cat", "dog", "cow"]
    first, second = root.findall("image")
    assert (second.get("name"), second.get("width"), second.get("height"), len(second)) == ("deep/ü b.jpg", "6", "5", 0)
    polygons = []
    for polygon in first:
        points = [[float(number) for number in point.split(",")] for point in polygon.get("points", "").split(";")]
        polygons.append(({"cat": 1, "cow": 3}[polygon.get("label", "")], np.array(points)))
    assert overlap(filled(polygons, (120, 160)), masks["a"], 3) > 0.93


def test_small_regions_are_left_out(write: Write, tmp_path: Path) -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[1:4, 1:4], mask[7, 7] = 1, 2
    predictions = write(tmp_path, {"a": mask})
    for least, labels in ((1, ["cat", "dog"]), (2, ["cat"])):
        export_cvat(predictions, tmp_path / "out.xml", least)
        found = ET.parse(tmp_path / "out.xml").getroot().iter("polygon")
        assert [polygon.get("label") for polygon in found] == labels


def test_a_damaged_mask_leaves_the_earlier_file(write: Write, tmp_path: Path) -> None:
    predictions = write(tmp_path, {"a": blobs()})
    export_cvat(predictions, tmp_path / "out.xml")
    before = (tmp_path / "out.xml").read_bytes()
    write_mask(predictions.mask_path("a"), np.full((4, 5), 9, np.uint8))
    with pytest.raises(DataError):
        export_cvat(predictions, tmp_path / "out.xml")
    assert (tmp_path / "out.xml").read_bytes() == before


@given(seed=st.integers(0, 500), height=st.integers(1, 14), width=st.integers(1, 14), tolerance=st.floats(0, 3))
def test_no_point_is_farther_away_than_the_tolerance(seed: int, height: int, width: int, tolerance: float) -> None:
    inside = np.random.default_rng(seed).random((height, width)) < 0.7
    for polygon in region_polygons(inside):
        found = simplified(polygon, tolerance)
        assert {tuple(point) for point in found.tolist()} <= {tuple(point) for point in polygon.tolist()}
        assert len(found) >= min(3, len(polygon))
        for point in polygon:
            ends = zip(found, np.roll(found, -1, axis=0), strict=True)
            assert min(far_from(point, start, end) for start, end in ends) <= tolerance + 1e-9


def far_from(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    along, offset = (end - start).astype(float), (point - start).astype(float)
    length = along @ along
    part = min(1.0, max(0.0, offset @ along / length)) if length else 0.0
    return float(np.hypot(*(offset - part * along)))


def test_without_tolerance_nothing_moves() -> None:
    (polygon,) = region_polygons(blobs() == 3)
    assert len(simplified(polygon, TOLERANCE)) < len(polygon) / 2
    np.testing.assert_array_equal(simplified(polygon, 0.0), polygon)


def test_on_the_command_line(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {"a": blobs()})
    arguments = ["export", str(tmp_path), "--labelme", str(tmp_path / "l"), "--cvat", str(tmp_path / "c.xml")]
    assert main([*arguments, "--min-area", "3"]) == 0
    assert f"cvat: {tmp_path / 'c.xml'}" in capsys.readouterr().out
    assert (tmp_path / "l" / "a.json").exists()
