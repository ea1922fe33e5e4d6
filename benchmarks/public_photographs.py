"""Two photographs in the public domain, masked by classifiers that saw tags alone: README's picture of real ones.

    python benchmarks/public_photographs.py docs/pictures/photographs.png "plain CAM" RUN SFC RUN

The photographs are scikit-image's: a cat (CC0) and an astronaut (NASA, public domain), shrunk to a long side of 320
pixels as the photographs of voc_animals are. Neither was seen in training and neither has tags here: the classes are
those that the classifier predicts, the masks its maps behind a CRF (`sfc predict --source cams --crf true`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from sfc.cli import main as command
from sfc.data.pixels import resize_image
from sfc.pictures.overlay import overlay
from sfc.pictures.style import class_colours, save, styled

LONG_SIDE = 320


def main() -> None:
    """Writes the picture and prints which classes it shows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("runs", nargs="+", help="titles and run folders in turn; of a run its last method")
    arguments = parser.parse_args()
    runs = dict(zip(arguments.runs[::2], map(Path, arguments.runs[1::2]), strict=True))
    photographs = {"cat": shrunk(data.cat()), "astronaut": shrunk(data.astronaut())}
    with tempfile.TemporaryDirectory() as folder:
        found = {
            title: masks_of(run, photographs, Path(folder) / str(n)) for n, (title, run) in enumerate(runs.items())
        }
    classes = next(iter(found.values()))[0]
    colours = np.round(255 * class_colours(len(classes))).astype(np.uint8)
    with styled():
        figure = Figure(figsize=(3 * (1 + len(runs)), 5.6), layout="constrained")
        shown: set[int] = set()
        for row, (name, photograph) in enumerate(photographs.items()):
            columns = {name: photograph}
            for title, (_, masks) in found.items():
                columns[title] = overlay(photograph, masks[name], colours)
                labels = {int(k): float((masks[name] == k).mean()) for k in np.unique(masks[name]) if k}
                shown |= labels.keys()
                words = ", ".join(f"{classes[k - 1]} {share:.0%}" for k, share in labels.items())
                print(f"{name}, {title}: {words or 'background alone'}")
            for column, (title, picture) in enumerate(columns.items()):
                axes = figure.add_subplot(2, len(columns), len(columns) * row + column + 1)
                axes.imshow(picture)
                axes.set_title(title)
                axes.axis("off")
        patches = [Patch(color=colours[k] / 255, label=classes[k - 1]) for k in sorted(shown)]
        figure.legend(handles=patches, loc="outside right center", frameon=False)
        save(arguments.picture, figure)


def masks_of(
    run: Path, photographs: dict[str, NDArray[np.uint8]], folder: Path
) -> tuple[list[str], dict[str, NDArray[np.uint8]]]:
    """Class names and the mask of each photograph, uint8 [H, W]."""
    (folder / "photographs").mkdir(parents=True)
    for name, photograph in photographs.items():
        Image.fromarray(photograph).save(folder / "photographs" / f"{name}.png")
    out = folder / "masks"
    arguments = [
        "predict",
        str(run),
        str(folder / "photographs"),
        "--source",
        "cams",
        "--crf",
        "true",
        "--out",
        str(out),
    ]
    if command(arguments):
        raise SystemExit(f"{run}: no masks")
    classes: list[str] = json.loads((out / "predictions.json").read_text())["classes"]
    return classes, {name: np.array(Image.open(next(out.rglob(f"{name}.png")))) for name in photographs}


def shrunk(photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Long side as in training; uint8 [H, W, 3]."""
    height, width = photograph.shape[:2]
    factor = LONG_SIDE / max(height, width)
    return resize_image(photograph, (round(factor * height), round(factor * width)))


if __name__ == "__main__":
    main()
