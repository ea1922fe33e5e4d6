"""Two photographs in the public domain, masked by what learned from tags alone: README's picture of real ones.

    python benchmarks/public_photographs.py docs/pictures/photographs.png RUN

RUN is a run of the recipe `voc_animals` with both methods. The photographs are scikit-image's: a cat (CC0) and an
astronaut (NASA, public domain), shrunk to a long side of 320 pixels as those of the run are. Neither was seen in
training and neither has tags here. Masks are those of each method's segmenter behind a CRF (`sfc predict --crf true`),
with `--source cams` those of its classifier's maps.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from sfc.cli import main as command
from sfc.data.pixels import resize_image
from sfc.pictures.overlay import overlay
from sfc.pictures.style import class_colours, save, styled

LONG_SIDE = 320
METHODS = {"cam": "plain CAM", "sfc": "SFC"}


def main() -> None:
    """Writes the picture and prints which classes it shows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("run", type=Path, help="its folder, with the methods cam and sfc")
    parser.add_argument("--source", choices=["segmenter", "cams"], default="segmenter", help="where masks come from")
    arguments = parser.parse_args()
    photographs = {"cat": shrunk(data.cat()), "astronaut": shrunk(data.astronaut())}
    masks: dict[str, dict[str, NDArray[np.uint8]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            options = ["--method", method, "--source", arguments.source, "--crf", "true"]
            classes, masks[method] = predicted(arguments.run, photographs, Path(folder) / method, options)
    shown = {int(k) for of_method in masks.values() for mask in of_method.values() for k in np.unique(mask) if k}
    for name in photographs:
        for method, title in METHODS.items():
            shares = [(classes[k - 1], float((masks[method][name] == k).mean())) for k in sorted(shown)]
            words = ", ".join(f"{label} {share:.0%}" for label, share in shares if share)
            print(f"{name}, {title}: {words or 'background alone'}")
    draw(arguments.picture, photographs, masks, {k: classes[k - 1] for k in sorted(shown)}, len(classes))


def draw(
    path: Path,
    photographs: dict[str, NDArray[np.uint8]],
    masks: dict[str, dict[str, NDArray[np.uint8]]],
    labels: dict[int, str],
    classes: int,
) -> None:
    """One row a photograph: itself, then every method's mask over it.

    Args:
        path: PNG to write.
        photographs: uint8 [H, W, 3], by name.
        masks: uint8 [H, W], by method and name.
        labels: the classes that some mask shows, by their value there.
        classes: how many classes there are.
    """
    colours = np.round(255 * class_colours(classes)).astype(np.uint8)
    rows = [
        [photograph, *(overlay(photograph, masks[method][name], colours) for method in METHODS)]
        for name, photograph in photographs.items()
    ]
    heights = [photograph.shape[0] for photograph in photographs.values()]
    with styled():
        size = (9, 9 * sum(heights) / (len(rows[0]) * LONG_SIDE) + 0.9)
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.1))
        grid = figure.subplots(len(rows), len(rows[0]), height_ratios=heights, squeeze=False)
        for column, title in enumerate(["photograph", *METHODS.values()]):
            grid[0, column].set_title(title)
            for row, pictures in enumerate(rows):
                grid[row, column].imshow(pictures[column])
                grid[row, column].axis("off")
        patches = [Patch(color=colours[k] / 255, label=label) for k, label in labels.items()]
        figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)
        save(path, figure)


def predicted(
    run: Path, photographs: dict[str, NDArray[np.uint8]], folder: Path, options: list[str]
) -> tuple[list[str], dict[str, NDArray[np.uint8]]]:
    """Class names, and the mask that `sfc predict` makes of each photograph, uint8 [H, W]."""
    (folder / "photographs").mkdir(parents=True)
    for name, photograph in photographs.items():
        Image.fromarray(photograph).save(folder / "photographs" / f"{name}.png")
    out = folder / "masks"
    if command(["predict", str(run), str(folder / "photographs"), *options, "--out", str(out)]):
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
