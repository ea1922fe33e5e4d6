"""Two photographs in the public domain, masked by a segmenter that was trained on tags: README's picture of real ones.

    sfc export runs/voc_animals --model model
    python benchmarks/public_photographs.py model docs/pictures/photographs.png

The photographs are scikit-image's: a cat (CC0) and an astronaut (NASA, public domain). Like the training photographs of
voc_animals they are shrunk to a long side of 320 pixels. Neither was seen in training, and nothing was chosen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from skimage import data

import sfc
from sfc.data.pixels import resize_image
from sfc.pictures.overlay import overlay
from sfc.pictures.style import class_colours, save, styled
from sfc.segment.config import Way

LONG_SIDE = 320
WAYS: dict[Way, str] = {"multi": "segmenter", "multi+crf": "segmenter, CRF"}


def main() -> None:
    """Writes the picture and prints which classes it shows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", type=Path, help="model folder that `sfc export` wrote")
    parser.add_argument("picture", type=Path, help="PNG to write")
    arguments = parser.parse_args()
    model = sfc.load(arguments.model)
    photographs = {"cat": shrunk(data.cat()), "astronaut": shrunk(data.astronaut())}
    colours = np.round(255 * class_colours(len(model.classes))).astype(np.uint8)
    with styled():
        figure = Figure(figsize=(9, 5.6), layout="constrained")
        for row, (name, photograph) in enumerate(photographs.items()):
            masks = {way: model.mask(photograph, way) for way in WAYS}
            pictures = {name: photograph, **{WAYS[way]: overlay(photograph, masks[way], colours) for way in WAYS}}
            for column, (title, picture) in enumerate(pictures.items()):
                axes = figure.add_subplot(2, 3, 3 * row + column + 1)
                axes.imshow(picture)
                axes.set_title(title)
                axes.axis("off")
            found = [k for k in np.unique(masks["multi+crf"]) if k]
            shares = ", ".join(f"{model.classes[k - 1]} {(masks['multi+crf'] == k).mean():.0%}" for k in found)
            print(f"{name}: {shares or 'background alone'}")
            legend = [Patch(color=colours[k] / 255, label=model.classes[k - 1]) for k in found]
            axes.legend(handles=legend, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        save(arguments.picture, figure)


def shrunk(photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Long side as in training; uint8 [H, W, 3]."""
    height, width = photograph.shape[:2]
    factor = LONG_SIDE / max(height, width)
    return resize_image(photograph, (round(factor * height), round(factor * width)))


if __name__ == "__main__":
    main()
