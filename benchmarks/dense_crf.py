"""Dense CRF: time beside pydensecrf, several images at once, memory, agreement, and the hours that COCO would take.

An image of 375 × 500 and 10 updates; the image's lattice is built every time, the lattice of positions is at hand.
pydensecrf is no dependency: where `pip install pydensecrf2` (a C++ compiler is needed) was not done, its rows are left
out. Without --photograph the image is a generated one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from measure import Figure, begin, finish, in_fresh_process, interleaved, memory_bytes
from sfc.data.images import read_image, write_mask
from sfc.localize.store import load_cams, save_cams
from sfc.refine.crf.config import CRFConfig
from sfc.refine.crf.dense import compile_kernels, dense_crf
from sfc.refine.crf.labels import relation_labels

HEIGHT, WIDTH = 375, 500
COCO_IMAGES, COCO_SIZE = 82_783, (480, 640)
MACHINES = 8
SPINS = 60_000_000
"""About the time of one image."""
CASES = {
    "21 labels, 4 occur": (21, 4, 4.5, 6),
    "2 labels": (2, 2, 2, 3),
    "21 labels, all occur": (21, 21, 1.5, 2),
}
"""Declared labels, labels that occur, the bar and the goal, in times of pydensecrf's speed."""


def generated_image(height: int, width: int) -> NDArray[np.uint8]:
    """Discs of different shades on a gradient, softly lit, with the noise of a camera."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width].astype(np.float32) / min(height, width)
    picture = np.stack([60 + 90 * y, 90 + 40 * x, 140 - 50 * y], axis=2)
    for _ in range(40):
        centre_y, centre_x, radius = generator.random(3) * (
            height / min(height, width),
            width / min(height, width),
            0.3,
        )
        inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2
        shade = generator.integers(20, 235, 3) + 30 * np.sin(9 * x + 7 * y)[inside, None]
        picture[inside] = shade
    picture += generator.normal(0, 3, picture.shape)
    return picture.clip(0, 255).astype(np.uint8)


def noisy_labels(height: int, width: int, occurring: int) -> NDArray[np.int64]:
    """Squares of 40 pixels, one pixel in ten with another label."""
    generator = np.random.default_rng(1)
    squares = np.add.outer(7 * (np.arange(height) // 40), np.arange(width) // 40) % occurring
    return np.where(generator.random(squares.shape) < 0.1, generator.integers(0, occurring, squares.shape), squares)


def pydensecrf_marginals(image: NDArray[np.uint8], labels: NDArray[np.int64], total: int) -> NDArray[np.float32]:
    """The same CRF by pydensecrf, its unary made from the label map as ours is."""
    densecrf: Any = importlib.import_module("pydensecrf.densecrf")
    height, width = labels.shape
    unary = np.full((total, labels.size), -np.log(0.3 / (total - 1)), np.float32)
    unary[labels.reshape(-1), np.arange(labels.size)] = -np.log(0.7)
    crf = densecrf.DenseCRF2D(width, height, total)
    crf.setUnaryEnergy(unary)
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=50, srgb=5, rgbim=image, compat=10)
    return np.array(crf.inference(10)).reshape(total, height, width)


def speed(image: NDArray[np.uint8], rounds: int) -> list[Figure]:
    """CPU seconds beside pydensecrf; without it, ours alone."""
    rows = []
    with_reference = importlib.util.find_spec("pydensecrf") is not None
    if not with_reference:
        print("pydensecrf is not installed (pip install pydensecrf2): its rows are left out")
    for name, (total, occurring, bar, goal) in CASES.items():
        labels = noisy_labels(image.shape[0], image.shape[1], occurring)
        variants = {"ours": partial(dense_crf, image, labels=labels, num_labels=total)}
        if with_reference:
            variants["pydensecrf"] = partial(pydensecrf_marginals, image, labels, total)
        seconds = interleaved(variants, rounds, clock_name="cpu")
        rows.append(Figure(f"{name}: milliseconds", seconds["ours"] * 1000, "ms"))
        if with_reference:
            ratio = seconds["pydensecrf"] / seconds["ours"]
            rows += [
                Figure(f"{name}: pydensecrf / ours", ratio, at_least=bar),
                Figure(f"{name}: goal", ratio, at_least=goal),
            ]
    return rows + (agreement(image) if with_reference else [])


def agreement(photograph: NDArray[np.uint8]) -> list[Figure]:
    """Differences from pydensecrf."""
    noise = np.random.default_rng(2).integers(0, 256, (101, 67, 3), dtype=np.uint8)
    rows = []
    for name, image in (("this image", photograph), ("noise 101 × 67", noise)):
        labels = noisy_labels(image.shape[0], image.shape[1], 4)
        ours, theirs = dense_crf(image, labels=labels, num_labels=21), pydensecrf_marginals(image, labels, 21)
        other = float((ours.argmax(axis=0) != theirs.argmax(axis=0)).mean())
        rows += [
            Figure(f"{name}: mean difference of marginals", float(np.abs(ours - theirs).mean()), "", at_most=1e-6),
            Figure(f"{name}: other labels", 100 * other, "%", at_most=0.05),
        ]
    return rows


@numba.njit(nogil=True)
def spin(times: int, x: float) -> float:
    """Arithmetic in registers: what two threads of this machine can do at best, whoever else it serves."""
    for _ in range(times):
        x = x * 0.999 + 0.001
    return x


def gather_tables(seed: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Places and values for `gather`."""
    generator = np.random.default_rng(seed)
    values = generator.random(2**21, dtype=np.float32)
    return generator.integers(0, values.size, 20_000_000, dtype=np.int32), values


@numba.njit(nogil=True)
def gather(places: NDArray[np.int32], values: NDArray[np.float32]) -> Any:
    """Reads as the CRF reads its lattices: what the cache that threads share allows."""
    total = np.float32(0)
    for place in places:
        total += values[place]
    return total


def several_at_once(image: NDArray[np.uint8], rounds: int) -> list[Figure]:
    """Two images on two threads beside one on one: wall seconds, and CPU seconds, which other work hardly moves."""
    labels = noisy_labels(image.shape[0], image.shape[1], 4)
    run = partial(dense_crf, image, labels=labels, num_labels=21)
    with ThreadPoolExecutor(2) as pool:

        def run_two() -> None:
            for task in [pool.submit(run), pool.submit(run)]:
                task.result()

        def gather_two() -> None:
            for task in [pool.submit(gather, *tables) for tables in both]:
                task.result()

        def spin_two() -> None:
            for task in [pool.submit(spin, SPINS, 0.5), pool.submit(spin, SPINS, 0.5)]:
                task.result()

        both = [gather_tables(seed) for seed in range(2)]
        spin(1, 0.5)
        gather(both[0][0][:1], both[0][1])
        variants: dict[str, Callable[[], Any]] = {
            "one": run,
            "two": run_two,
            "one spin": partial(spin, SPINS, 0.5),
            "two spins": spin_two,
            "one gather": partial(gather, *both[0]),
            "two gathers": gather_two,
        }
        wall, cpu = (interleaved(variants, rounds, clock_name=clock) for clock in ("wall", "cpu"))
    return [
        Figure("two images on two threads / one on one, wall", wall["two"] / wall["one"], at_most=1.25),
        Figure("the same of arithmetic in registers", wall["two spins"] / wall["one spin"]),
        Figure("the same of reads all over 8 MB", wall["two gathers"] / wall["one gather"]),
        Figure("two images on two threads / two after each other, CPU", cpu["two"] / cpu["one"] / 2),
    ]


def smooth_cams(height: int, width: int) -> NDArray[np.float32]:
    """Maps of background and three classes, each a blob of its own, as inference scales them."""
    y, x = np.mgrid[:height, :width].astype(np.float32) / min(height, width)
    places = ((0.3, 0.3), (0.6, 0.9), (0.8, 0.4))
    blobs = [2 * np.exp(-((y - top) ** 2 + (x - left) ** 2) / 0.04) for top, left in places]
    return np.stack([1.4 - np.max(blobs, axis=0) / 2, *blobs]).astype(np.float32)


def projection(rounds: int) -> list[Figure]:
    """Hours from the stored CAMs of COCO's training images to their masks, all cores busy: read, two CRFs, write."""
    cores = os.cpu_count() or 1
    keys, cam = np.array([0, 3, 17, 40]), smooth_cams(*COCO_SIZE)
    with TemporaryDirectory() as name, ThreadPoolExecutor(cores) as pool:
        folder = Path(name)
        Image.fromarray(generated_image(*COCO_SIZE)).save(folder / "image.jpg", quality=92)
        save_cams(folder / "image.cam", keys, cam, cam)

        def work(index: int) -> None:
            found, weight, prototype = load_cams(folder / "image.cam")
            fused = weight + np.float32(0.7) * prototype
            mask = relation_labels(read_image(folder / "image.jpg"), found, fused, CRFConfig())
            write_mask(folder / f"{index}.png", mask)

        def batch() -> None:
            list(pool.map(work, range(cores)))

        seconds = interleaved({"batch": batch}, rounds, clock_name="wall")["batch"] / cores
    hours = seconds * COCO_IMAGES / 3600
    size = f"{COCO_SIZE[0]} × {COCO_SIZE[1]}"
    return [
        Figure(f"COCO, {COCO_IMAGES:,} × {size}, CAM file to mask: hours on this machine", hours, "h"),
        Figure(f"COCO: hours on {MACHINES} such machines", hours / MACHINES, "h"),
    ]


def peak_memory(megapixels: float, total: int) -> dict[str, float]:
    """Bytes above what the process held before, input and output included, in a process of its own."""
    compile_kernels()
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(megapixels * 1e6 / height)
    before = memory_bytes("VmRSS")
    tile = generated_image(min(height, 1500), min(width, 2000))
    image = np.tile(tile, (-(-height // len(tile)), -(-width // tile.shape[1]), 1))[:height, :width]
    labels = (np.add.outer(np.arange(height) // 40, np.arange(width) // 40) % total).astype(np.uint8)
    dense_crf(image, labels=labels, num_labels=total, iterations=1)
    return {"bytes": memory_bytes("VmHWM") - before, "megapixels": height * width / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--photograph", type=Path, help="an image file, resized to 375 × 500")
    parser.add_argument("--megapixels", type=float, default=6, help="size of the image whose memory is measured")
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only_memory:
        print(json.dumps(peak_memory(arguments.megapixels, 2)))
        return
    header = begin("dense CRF")
    compile_kernels()
    image = generated_image(HEIGHT, WIDTH)
    if arguments.photograph:
        with Image.open(arguments.photograph) as opened:
            image = np.array(opened.convert("RGB").resize((WIDTH, HEIGHT)))
    rows = speed(image, arguments.rounds)
    rows += several_at_once(image, arguments.rounds) + projection(max(3, arguments.rounds // 4))
    memory = in_fresh_process("--only-memory", "--megapixels", str(arguments.megapixels))
    rows.append(Figure("peak memory, 2 labels, a megapixel", memory["bytes"] / 2**20 / memory["megapixels"], "MiB"))
    finish(header, rows)


if __name__ == "__main__":
    main()
