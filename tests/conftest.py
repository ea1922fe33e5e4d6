"""Golden figures, the checkpoint that those of the network were computed with, and a tiny data set on disk."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from math import prod
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor

# How long an example takes depends on what else the machine is doing.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

Golden = Callable[[str], dict[str, np.ndarray]]


@pytest.fixture(scope="session")
def golden() -> Golden:
    """Reads one file of tests/golden; see the README there for what is in it and where it comes from."""

    def read(name: str) -> dict[str, np.ndarray]:
        with np.load(Path(__file__).parent / "golden" / f"{name}.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    return read


def reference_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weights behind the golden figures: each tensor from its own generator, seeded by its name."""
    kind = name.rpartition(".")[2]
    random = torch.Generator().manual_seed(zlib.crc32(f"1:{name}".encode()))
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if kind == "running_var":
        return 0.75 + 0.5 * torch.rand(shape, generator=random)
    if kind in {"bias", "running_mean"}:
        return torch.zeros(shape)
    if len(shape) == 1:
        return 0.3 + 0.4 * torch.rand(shape, generator=random)
    weight = torch.randn(shape, generator=random) * (2 / prod(shape[1:])) ** 0.5
    if name in {"classifier.weight", "f9.weight"}:
        weight = weight - weight.mean(dim=1, keepdim=True)
    if name == "f9.weight":
        weight[:, :3] *= 30
    return weight


def released_layout() -> dict[str, dict[str, Tensor]]:
    """What the released training saves: a state dict under `net`, in which most tensors have up to three names."""
    with torch.device("meta"):
        resnet = torchvision.models.resnet50()
    shapes = {f"resnet50.{name}": value.shape for name, value in resnet.state_dict().items() if name[:3] != "fc."}
    heads = {
        "classifier.weight": (20, 2048, 1, 1),
        "f9.weight": (2048, 2048 + 3, 1, 1),
        "side1.weight": (128, 256, 1, 1),
        "side2.weight": (128, 512, 1, 1),
        "side3.weight": (256, 1024, 1, 1),
        "side4.weight": (256, 2048, 1, 1),
    }
    state = {name: reference_tensor(name, tuple(shape)) for name, shape in {**shapes, **heads}.items()}
    aliases = {}
    for name, value in state.items():
        parts = name.split(".")
        if name in heads:
            aliases[f"newly_added.{list(heads).index(name)}.weight"] = value
            continue
        if parts[1] in {"conv1", "bn1"}:
            rest = ".".join(["0" if parts[1] == "conv1" else "1", *parts[2:]])
            stage = 0
        else:
            rest = ".".join(["0", *parts[2:]])
            stage = int(parts[1].removeprefix("layer"))
        aliases[f"stage{stage}.{rest}"] = value
        aliases[f"backbone.{stage}.{rest}"] = value
    return {"net": {**state, **aliases}}


@pytest.fixture(scope="session")
def official_checkpoint() -> dict[str, dict[str, Tensor]]:
    """The checkpoint of the golden figures; not to be changed by a test."""
    return released_layout()


SQUARES = ("red", "green", "blue")


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table data set of coloured squares, 48 x 48: 12 images with tags and 6 for validation; not to be changed.

    train.csv has no masks, train_with_masks.csv and val.csv have them; classes.txt; every seventh image is a negative.
    """
    root = tmp_path_factory.mktemp("squares")
    train, val = _write_squares(root, "train", 12), _write_squares(root, "val", 6)
    for name, rows, columns in (("train", train, 2), ("train_with_masks", train, 3), ("val", val, 3)):
        lines = [",".join(row[:columns]) for row in [("image", "labels", "mask"), *rows]]
        (root / f"{name}.csv").write_text("\n".join(lines) + "\n")
    (root / "classes.txt").write_text("\n".join(("background", *SQUARES)) + "\n")
    return root


def _write_squares(root: Path, split: str, count: int) -> list[tuple[str, str, str]]:
    """Rows of the table: image, labels, mask."""
    (root / split).mkdir()
    rows = []
    for index in range(count):
        random = np.random.default_rng([index, len(split)])
        image = random.integers(90, 130, (48, 48, 3), dtype=np.uint8)
        mask = np.zeros((48, 48), dtype=np.uint8)
        for label in () if index % 7 == 6 else {index % 3, int(random.integers(3))}:
            y, x = random.integers(0, 28, 2)
            image[y : y + 20, x : x + 20] = 30
            image[y : y + 20, x : x + 20, label] = 220
            mask[y : y + 20, x : x + 20] = label + 1
        names = (f"{split}/{index}.png", f"{split}/{index}_mask.png")
        for name, pixels in zip(names, (image, mask), strict=True):
            Image.fromarray(pixels).save(root / name)
        rows.append((names[0], ";".join(SQUARES[value - 1] for value in np.unique(mask[mask > 0])), names[1]))
    return rows


@pytest.fixture(scope="session")
def recipe(squares: Path) -> Path:
    """Settings for the squares: the smallest network, six steps, two scales, one thread."""
    path = squares / "recipe.yaml"
    path.write_text(RECIPE.format(root=squares))
    return path


RECIPE = """\
data: {{root: {root}, train_masks: train_with_masks.csv, val: val.csv, classes: classes.txt}}
classify:
  network: {{backbone: compact, weights: none, trained_from: 0, centre_features: true}}
  input: {{long_side: null, crop: 48}}
  training: {{optimiser: adamw, learning_rate: 0.002, head_factor: 1, batch: 4, epochs: 2}}
localize: {{scales: [1.0, 0.5]}}
refine:
  method: crf
  irn:
    radius: 4
    input: {{crop: 48}}
    training: {{optimiser: adamw, learning_rate: 0.002, batch: 4, epochs: 1}}
segment:
  network: {{backbone: classifier, deeplab_v2: {{atrous_rates: [1, 2]}}}}
  input: {{crop: 48}}
  scales: [1.0]
  training: {{optimiser: adamw, learning_rate: 0.002, head_factors: [1, 1], batch: 4, epochs: 2}}
machine: {{accelerator: cpu, workers: 0, threads: 1, checkpoint_every: 2}}
"""


@pytest.fixture(scope="session")
def squares_run(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the squares, plain CAM and SFC, without its report; not to be changed."""
    from sfc.config import load_config
    from sfc.pipeline import run

    folder = tmp_path_factory.mktemp("finished") / "run"
    run(load_config([recipe]), folder, ("classify", "localize", "refine", "segment", "evaluate"))
    return folder
