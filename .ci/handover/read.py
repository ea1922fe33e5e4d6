"""Reads exports of sfc with the programs that they are for, and compares what these see with the masks.

Their outlines are filled here in one way, a pixel where its centre lies inside: each program has a way of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import datumaro
import matplotlib.path
import numpy as np
from labelme._label_file import LabelFile
from PIL import Image
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset

EXACT, FOR_PEOPLE = 1.0, 0.93
"""Least overlap of a class of a photograph; outlines that people correct leave the edge of the mask by up to 0.75
pixels."""
CLASSES = ("cat", "dog", "cow")


def filled(size: tuple[int, int], outlines: list[tuple[str, np.ndarray]]) -> np.ndarray:
    """uint8 [H, W] of named outlines, float [points, 2], in coordinates whose whole numbers are edges of pixels."""
    height, width = size
    centres = np.mgrid[:height, :width][::-1].reshape(2, -1).T + 0.5
    mask = np.zeros(size, np.uint8)
    for name, points in outlines:
        inside = matplotlib.path.Path(points).contains_points(centres).reshape(size)
        mask[inside] = 1 + CLASSES.index(name)
    return mask


def size_of(folder: Path, name: str) -> tuple[int, int]:
    """Height and width of a photograph."""
    with Image.open(folder / "photos" / f"{name}.jpg") as photograph:
        return photograph.height, photograph.width


def by_labelme(folder: Path, name: str) -> np.ndarray:
    """As LabelMe opens the file, photograph included."""
    file = LabelFile(str(folder / "labelme" / f"{name}.json"))
    assert file.image_data, f"{name}: LabelMe did not find the photograph"
    return filled(size_of(folder, name), [(shape["label"], np.array(shape["points"])) for shape in file.shapes])


def by_datumaro(folder: Path, format_name: str, path: Path) -> dict[str, np.ndarray]:
    """As Datumaro, CVAT's own converter, imports the file; by id of the photograph."""
    found = {}
    dataset = datumaro.Dataset.import_from(str(path), format_name)
    names = [category.name for category in dataset.categories()[datumaro.AnnotationType.label]]
    for item in dataset:
        outlines = [
            (names[each.label], np.array(each.points).reshape(-1, 2))
            for each in item.annotations
            if isinstance(each, datumaro.Polygon)
        ]
        mask = filled(size_of(folder, item.id), outlines)
        for each in item.annotations:
            if isinstance(each, datumaro.Mask):
                mask[np.asarray(each.image, bool)] = 1 + CLASSES.index(names[each.label])
        found[item.id] = mask
    return found


def by_ultralytics(folder: Path) -> dict[str, np.ndarray]:
    """As Ultralytics' segmentation data set holds them before training."""
    data = check_det_dataset(str(folder / "yolo" / "data.yaml"))
    dataset = YOLODataset(img_path=data["train"], data=data, task="segment", augment=False)
    found = {}
    for label in dataset.get_labels():
        name = Path(label["im_file"]).relative_to(folder / "yolo" / "images").with_suffix("").as_posix()
        height, width = label["shape"]
        kinds = label["cls"].ravel().astype(int).tolist()
        outlines = [
            (data["names"][kind], outline * (width, height))
            for kind, outline in zip(kinds, label["segments"], strict=True)
        ]
        found[name] = filled((height, width), outlines)
    return found


def main(folder: Path) -> int:
    """Prints the least overlap that each program sees; 1 where one is too little."""
    masks = {}
    for path in sorted((folder / "masks").rglob("*.png")):
        with Image.open(path) as mask:
            masks[path.relative_to(folder / "masks").with_suffix("").as_posix()] = np.asarray(mask)
    programs = {
        "LabelMe": (FOR_PEOPLE, {name: by_labelme(folder, name) for name in masks}),
        "CVAT, by Datumaro": (FOR_PEOPLE, by_datumaro(folder, "cvat", folder / "cvat" / "annotations.xml")),
        "COCO, by Datumaro": (EXACT, by_datumaro(folder, "coco_instances", folder / "coco")),
        "YOLO, by Ultralytics": (EXACT, by_ultralytics(folder)),
    }
    code = 0
    for program, (bound, found) in programs.items():
        assert found.keys() == masks.keys(), f"{program}: {sorted(found)}"
        overlaps = [
            ((found[name] == k) & (mask == k)).sum() / ((found[name] == k) | (mask == k)).sum()
            for name, mask in masks.items()
            for k in range(1, 1 + len(CLASSES))
            if (mask == k).any() or (found[name] == k).any()
        ]
        assert len(overlaps) == 2 * len(CLASSES), program
        print(f"{program}: every class of every photograph overlaps by {min(overlaps):.3f} (at least {bound})")
        code |= min(overlaps) < bound
    return int(code)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
