"""The page of a run: which files, what they say, and that they say it about any data set."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from sfc.data.images import PngMask, write_mask
from sfc.data.records import DataSet, Record
from sfc.evaluate.cams import evaluate_cams
from sfc.evaluate.scores import MaskScore, Scores
from sfc.localize.store import cam_path, save_cams
from sfc.report.examples import Gallery, Source
from sfc.report.page import write_report
from sfc.signs.system import ClassSigns
from sfc.signs.verdict import judged

CLASSES = ("car & van", "<tree>", "$5 note$", "自転車", "bus_stop")
COUNTS = np.array([40, 20, 9, 3, 0])
GROUPS = ["head", "medium", "tail", "tail", "absent"]


def make_dataset(root: Path, masks: bool = True, images: int = 12) -> DataSet:
    """Photographs of different shapes; image i shows classes i and i + 1 (of the first four), image 0 nothing."""
    rng = np.random.default_rng(0)
    records = []
    for index in range(images):
        name, size = f"street {index % 3}/{index:03}", (20 + index, 44 - index)
        labels = tuple(sorted({index % 4, (index + 1) % 4})) if index else ()
        image = root / "images" / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(image)
        mask = None
        if masks:
            values = rng.choice([0, *(label + 1 for label in labels), 255], size).astype(np.uint8)
            write_mask(root / "masks" / f"{name}.png", values)
            mask = PngMask(root / "masks" / f"{name}.png", len(CLASSES), image)
        records.append(Record(name, image, labels, mask))
    return DataSet("streets", "train", CLASSES, tuple(records))


def make_cams(folder: Path, dataset: DataSet, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for record in dataset.records:
        height, width = np.array(Image.open(record.image)).shape[:2]
        keys = np.array([0, *(label + 1 for label in record.labels)])
        cams = (2 * rng.random((2, len(keys), height, width))).astype(np.float32)
        save_cams(cam_path(folder, record.id), keys, *cams)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> tuple[DataSet, list[Scores], list[Source]]:
    """Two variants of one data set with masks."""
    dataset = make_dataset(tmp_path)
    names = ("plain CAM", "SFC & more")
    sources = [Source(name, make_cams(tmp_path / name, dataset, seed), 0.7) for seed, name in enumerate(names)]
    scores = [
        evaluate_cams(
            dataset,
            source.folder,
            run=source.name,
            class_groups=GROUPS,
            class_counts=COUNTS,
            provenance={"checkpoint": "last", "scales": "1" if source is sources[0] else "1, 2"},
            fusion_lambda=0.7,
        )
        for source in sources
    ]
    return dataset, scores, sources


def embedded(page: str) -> list[bytes]:
    return [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]


def test_page_and_pictures(tmp_path: Path, run: tuple[DataSet, list[Scores], list[Source]]) -> None:
    dataset, scores, sources = run
    folder = tmp_path / "report"
    path = write_report(folder, "SFC on streets", scores, [Gallery(dataset, sources)], COUNTS)
    names = ["masks_train.png", "classes_train.png", "thresholds_train.png"]
    assert sorted(file.name for file in folder.iterdir()) == sorted([*names, "index.html"])
    page = path.read_text(encoding="utf-8")
    assert embedded(page) == [(folder / name).read_bytes() for name in names]
    for name in names:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20
    # Nothing is fetched from anywhere.
    assert "://" not in page
    assert "<script" not in page
    assert page.count("src=") == page.count('src="data:image/png;base64,')
    for words in ("&lt;tree&gt;", "car &amp; van", "SFC &amp; more", "uses truth", "W + 0.7 P", "fixed rule"):
        assert words in page
    assert "<tree>" not in page
    # Provenance: once where the runs agree, by run where they do not.
    assert page.count("<dd>last</dd>") == 1
    assert "<dt>scales, plain CAM</dt><dd>1</dd>" in page
    fused = ", ".join(f"{entry.run} {entry.scores[-1].fixed:.1f}" for entry in scores).replace("&", "&amp;")
    assert f"Maps of {len(dataset)} training photographs against the truth (W + 0.7 P): {fused} mIoU." in page
    for entry in scores:
        for score in entry.scores:
            assert f"{score.oracle:.1f} at {score.oracle_background_score:.2f}" in page


def test_masks_have_boundary_scores_and_maps_have_none(
    tmp_path: Path, run: tuple[DataSet, list[Scores], list[Source]]
) -> None:
    dataset, scores, sources = run
    maps = scores[0].scores[0]
    masks = MaskScore(
        what="random walk",
        fixed=50.0,
        iou=maps.iou,
        groups=maps.groups,
        over_activation=maps.over_activation,
        under_activation=maps.under_activation,
        pixel_accuracy=60.0,
        boundary_iou=61.23,
    )
    refined = [replace(scores[0], masks=[masks]), *scores[1:]]
    page = write_report(tmp_path / "report", "SFC", refined, [Gallery(dataset, sources)], COUNTS).read_text(
        encoding="utf-8"
    )
    (row,) = re.findall(r"<tr[^>]*>(?:(?!</tr>).)*random walk.*?</tr>", page, re.DOTALL)
    assert '<td class="first">61.2</td><td>–</td>' in row
    assert page.count('<td class="first"></td><td></td>') == sum(len(entry.scores) for entry in scores)


def test_same_data_same_page(tmp_path: Path, run: tuple[DataSet, list[Scores], list[Source]]) -> None:
    dataset, scores, sources = run
    first = write_report(tmp_path / "a", "SFC", scores, [Gallery(dataset, sources)], COUNTS).read_bytes()
    assert write_report(tmp_path / "b", "SFC", scores, [Gallery(dataset, sources)], COUNTS).read_bytes() == first


def test_each_split_gets_its_section(tmp_path: Path, run: tuple[DataSet, list[Scores], list[Source]]) -> None:
    dataset, scores, sources = run
    other = [Scores(**{**vars(entry), "split": "val"}) for entry in scores]
    page = write_report(tmp_path / "report", "SFC", [*scores, *other], [Gallery(dataset, sources)], COUNTS).read_text()
    assert len(embedded(page)) == 5
    assert page.index("streets, train") < page.index("streets, val")


def test_data_without_masks_gets_pictures_and_no_scores(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, masks=False)
    sources = [Source("SFC", make_cams(tmp_path / "cams", dataset, 0), 1.0)]
    page = write_report(tmp_path / "report", "SFC", [], [Gallery(dataset, sources)], COUNTS).read_text()
    assert len(embedded(page)) == 1
    assert "no masks" in page
    assert "mIoU" not in page


def test_what_the_maps_say_of_themselves_stands_on_the_page(
    tmp_path: Path, run: tuple[DataSet, list[Scores], list[Source]]
) -> None:
    dataset, _, sources = run
    signs = [
        ClassSigns(name, 12, level=level, coverage=0.3, spread=0.5, missed=0.0, agreement=0.6, doubt=0.1, edges=1.25)
        for name, level in (("car & van", 0.2), ("<tree>", 0.87))
    ]
    gallery = [Gallery(dataset, sources)]
    page = write_report(tmp_path / "report", "SFC", [], gallery, COUNTS, {"SFC & more": judged(signs)}).read_text()
    assert "<p>SFC &amp; more: maps of &lt;tree&gt; are flat, or such things fill" in page
    assert re.search(r"<td class=\"name\">&lt;tree&gt;</td><td>12</td><td>0\.87</td>", page)
    assert "Signs of the maps" not in write_report(tmp_path / "other", "SFC", [], gallery, COUNTS).read_text()


def test_no_cams_no_examples(tmp_path: Path, run: tuple[DataSet, list[Scores], list[Source]]) -> None:
    dataset, scores, _ = run
    page = write_report(
        tmp_path / "report", "SFC", scores, [Gallery(dataset, [Source("SFC", tmp_path / "none", 1.0)])], COUNTS
    )
    assert len(embedded(page.read_text())) == 2
    assert not (tmp_path / "report" / "masks_train.png").exists()


def test_settings_of_matplotlib_are_left_alone(tmp_path: Path, run: tuple[DataSet, list[Scores], list[Source]]) -> None:
    dataset, scores, sources = run
    with mpl.rc_context({"font.size": 31.0, "figure.dpi": 33.0}):
        before = dict(mpl.rcParams)
        first = write_report(tmp_path / "a", "SFC", scores, [Gallery(dataset, sources)], COUNTS).read_bytes()
        assert dict(mpl.rcParams) == before
    assert write_report(tmp_path / "b", "SFC", scores, [Gallery(dataset, sources)], COUNTS).read_bytes() == first
