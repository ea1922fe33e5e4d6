"""Images with label maps: functions of seed, epoch and index; where the label maps come from; broken ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfc.data.images import PngMask, write_mask
from sfc.data.labelled_set import LabelledSet, PngLabels, true_labels
from sfc.data.records import DataSet, Record
from sfc.errors import DataError
from sfc.settings.shared import MaskedInputConfig

INPUT = MaskedInputConfig(scale=(0.5, 1.5), crop=40)


def data(folder: Path) -> DataSet:
    """Three images, black but for a bright part of class 2; masks of the same name in `masks`."""
    records = []
    for index, (height, width) in enumerate(((30, 60), (50, 20), (44, 44))):
        name = f"part/{index}"
        image = np.full((height, width, 3), 20, dtype=np.uint8)
        image[height // 3 :, width // 3 :] = 230
        (folder / "part").mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{name}.png")
        mask = np.where(image[:, :, 0] > 100, 2, 0).astype(np.uint8)
        write_mask(folder / "masks" / f"{name}.png", mask)
        source = PngMask(folder / "masks" / f"{name}.png", 2, folder / f"{name}.png")
        records.append(Record(name, folder / f"{name}.png", (1,), source if index else None))
    return DataSet("parts", "train", ("a", "b"), tuple(records))


def test_image_and_labels_move_together_and_padding_is_ignored(tmp_path: Path) -> None:
    samples = LabelledSet(data(tmp_path), PngLabels(tmp_path / "masks", 2), INPUT, 3)
    assert len(samples) == 3
    for index in range(3):
        sample = samples[0, index]
        assert isinstance(sample, dict)
        assert sample["image"].shape == (3, 40, 40)
        assert sample["label"].shape == (40, 40)
        image, label = sample["image"][0].numpy(), sample["label"].numpy()
        assert (label[image == 0] == 255).all()
        known = label != 255
        assert ((label == 2) == (image > 125))[known].mean() > 0.95
        assert known.sum() == np.prod(np.diff(sample["rectangle"].numpy().reshape(2, 2), axis=0))


def test_samples_are_functions_of_seed_epoch_and_index(tmp_path: Path) -> None:
    one, two, other = (LabelledSet(data(tmp_path), PngLabels(tmp_path / "masks", 2), INPUT, seed) for seed in (3, 3, 4))
    for name, value in one[1, 2].items():
        assert torch.equal(two[1, 2][name], value)
    assert not torch.equal(one[0, 2]["image"], one[1, 2]["image"])
    assert not torch.equal(other[1, 2]["image"], one[1, 2]["image"])


def test_ground_truth_as_labels(tmp_path: Path) -> None:
    records = data(tmp_path).records
    np.testing.assert_array_equal(true_labels(records[1]), PngLabels(tmp_path / "masks", 2)(records[1]))
    with pytest.raises(DataError, match=r"part/0\.png: has no ground-truth mask"):
        true_labels(records[0])


def test_faults_come_in_place_of_the_sample(tmp_path: Path) -> None:
    samples = LabelledSet(data(tmp_path), PngLabels(tmp_path / "masks", 1), INPUT, 3)
    assert "mask values 2 are beyond the 1 classes" in str(samples[0, 0])
    write_mask(tmp_path / "masks" / "part" / "0.png", np.zeros((4, 5), dtype=np.uint8))
    assert "part/0.png: is 60x30, but its labels are 5x4" in str(samples[0, 0])
    (tmp_path / "masks" / "part" / "0.png").unlink()
    assert "masks/part/0.png: no such file" in str(samples[0, 0])
    assert all(isinstance(samples[0, 0], DataError) for _ in range(2))
