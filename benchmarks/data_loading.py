"""Training images per core-second: JPEG to augmented uint8 crop, ours beside plain Pillow and NumPy.

Both read the same files, make the same draws (long side 320 to 640, mirror, 512 crop) and give the same crops, which
is checked first. The photographs are made at run time, of VOC's size; --images takes real ones.
Seconds are this process's own, so one core is what is counted, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from measure import Figure, begin, finish, interleaved
from sfc.data.images import open_image
from sfc.data.transforms import augment

COUNT = 48
LONG_SIDE, CROP = (320, 640), 512


def make_photographs(folder: Path) -> list[Path]:
    """JPEGs of 500 × 375 and 375 × 500: soft shapes with fine grain, about 70 kB each."""
    paths = []
    for index in range(COUNT):
        rng = np.random.default_rng(index)
        size = (500, 375) if index % 3 else (375, 500)
        layers = [
            np.asarray(
                Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)).resize(
                    size, Image.Resampling.BICUBIC
                ),
                dtype=np.float64,
            )
            for cells in (5, 20, 80)
        ]
        grain = rng.normal(0, 9, layers[0].shape)
        pixels = 0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2] + grain
        paths.append(folder / f"{index}.jpg")
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def plain_sample(path: Path, generator: np.random.Generator) -> np.ndarray:
    """The steps one after the other, as a script would write them."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    width, height = image.size
    target = int(generator.integers(LONG_SIDE[0], LONG_SIDE[1] + 1))
    longer = max(width, height)
    image = image.resize((round(width * target / longer), round(height * target / longer)), Image.Resampling.BICUBIC)
    mirror = generator.random() < 0.5
    pixels = np.asarray(image)
    places, cuts = [], []
    for length in pixels.shape[:2]:
        offset = int(generator.integers(0, abs(CROP - length) + 1))
        places.append(offset if length <= CROP else 0)
        cuts.append(0 if length <= CROP else offset)
    part = pixels[cuts[0] : cuts[0] + CROP, cuts[1] : cuts[1] + CROP]
    crop = np.zeros((CROP, CROP, 3), dtype=np.uint8)
    top, left = places
    crop[top : top + part.shape[0], left : left + part.shape[1]] = part[:, ::-1] if mirror else part
    return crop


def sample(path: Path, generator: np.random.Generator) -> np.ndarray:
    """Ours: what `TrainingSet` does for one image."""
    return augment(open_image(path), generator, LONG_SIDE, CROP)[0]


def check_alike(paths: list[Path]) -> None:
    """Stops if the two pipelines do not compute the same, up to the rounding of Pillow's box."""
    for index, path in enumerate(paths):
        ours = sample(path, np.random.default_rng(index)).astype(int)
        difference = np.abs(ours - plain_sample(path, np.random.default_rng(index)))
        if difference.mean() > 0.05:
            raise SystemExit(f"{path}: the pipelines differ by {difference.mean():.3f} on average")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of real JPEGs instead")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    header = begin("data loading")
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted(arguments.images.glob("*.jpg"))[:COUNT] if arguments.images else make_photographs(Path(folder))
        if not paths:
            raise SystemExit(f"{arguments.images}: has no .jpg files")
        check_alike(paths)
        seconds = interleaved(
            {
                "plain": lambda: [plain_sample(path, np.random.default_rng(i)) for i, path in enumerate(paths)],
                "ours": lambda: [sample(path, np.random.default_rng(i)) for i, path in enumerate(paths)],
            },
            arguments.rounds,
            clock_name="cpu",
        )
    finish(
        header,
        [
            Figure("plain Pillow and NumPy", len(paths) / seconds["plain"], "img/s"),
            Figure("ours", len(paths) / seconds["ours"], "img/s"),
            Figure("ours over plain", seconds["plain"] / seconds["ours"], at_least=1.0),
        ],
    )


if __name__ == "__main__":
    main()
