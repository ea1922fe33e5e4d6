"""Training samples depend on (seed, epoch, index) alone, in this process or in another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from sfc.classify.config import InputConfig
from sfc.classify.samples import TrainingSet
from sfc.data.images import read_image
from sfc.data.records import DataSet, Record
from sfc.errors import DataError

INPUT = InputConfig(long_side=(20, 40), crop=32)


@pytest.fixture
def dataset(tmp_path: Path) -> DataSet:
    records = []
    for index, labels in enumerate([(0,), (), (1, 2)]):
        path = tmp_path / f"{index}.jpg"
        noise = np.random.default_rng(index).integers(0, 256, (24, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        records.append(Record(str(index), path, labels))
    return DataSet("test", "train", ("a", "b", "c"), tuple(records))


def same(first: dict, second: dict) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_sample(dataset: DataSet) -> None:
    sample = TrainingSet(dataset, INPUT, seed=0)[3, 2]
    assert isinstance(sample, dict)
    assert {name: (value.dtype, tuple(value.shape)) for name, value in sample.items()} == {
        "image": (torch.uint8, (3, 32, 32)),
        "rectangle": (torch.int64, (4,)),
        "label": (torch.float32, (3,)),
    }
    assert sample["label"].tolist() == [0, 1, 1]
    top, left, bottom, right = sample["rectangle"].tolist()
    outside = sample["image"].clone()
    assert outside[:, top:bottom, left:right].any()
    outside[:, top:bottom, left:right] = 0
    assert not outside.any()


def test_negative_has_an_empty_label(dataset: DataSet) -> None:
    assert TrainingSet(dataset, INPUT, seed=0)[0, 1]["label"].tolist() == [0, 0, 0]


def test_without_augmentation_the_image_comes_through(dataset: DataSet) -> None:
    """But for the mirror, which half of them pass."""
    samples = TrainingSet(dataset, InputConfig(long_side=None, crop=30), seed=1)
    image = read_image(dataset.records[0].image)
    mirrored = []
    for epoch in range(40):
        sample = samples[epoch, 0]
        top, _, bottom, _ = sample["rectangle"].tolist()
        assert bottom - top == 24
        pixels = sample["image"][:, top:bottom].permute(1, 2, 0).numpy()
        mirrored.append(not np.array_equal(pixels, image))
        np.testing.assert_array_equal(pixels, image[:, ::-1] if mirrored[-1] else image)
    assert 10 < sum(mirrored) < 30


def test_sample_is_a_pure_function_of_seed_epoch_and_index(dataset: DataSet) -> None:
    samples = TrainingSet(dataset, INPUT, seed=0)
    before = samples[1, 0]
    np.random.seed(9)  # noqa: NPY002 - global state must not matter
    torch.manual_seed(9)
    for key in ((0, 0), (1, 1), (1, 2)):
        samples[key]
    assert same(samples[1, 0], before)
    assert not same(samples[2, 0], before)
    assert not same(TrainingSet(dataset, INPUT, seed=1)[1, 0], before)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_the_same_samples(dataset: DataSet, context: str) -> None:
    samples = TrainingSet(dataset, INPUT, seed=0)
    keys = [[(0, 2), (0, 0)], [(0, 1), (1, 2)]]
    loader = DataLoader(samples, batch_sampler=keys, num_workers=1, multiprocessing_context=context, collate_fn=list)
    for batch, expected in zip(loader, keys, strict=True):
        assert all(same(sample, samples[key]) for sample, key in zip(batch, expected, strict=True))


def test_unreadable_image_is_returned_as_an_error_even_from_a_worker(dataset: DataSet, tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes((tmp_path / "1.jpg").read_bytes()[:200])
    gone = replace(dataset.records[2], image=tmp_path / "gone.jpg")
    samples = TrainingSet(replace(dataset, records=(*dataset.records[:2], gone)), INPUT, seed=0)
    (errors,) = DataLoader(samples, batch_sampler=[[(0, 1), (0, 2)]], num_workers=1, collate_fn=list)
    assert [type(error) for error in errors] == [DataError, DataError]
    assert "1.jpg: the image is truncated or damaged" in str(errors[0])
    assert str(errors[1]) == f"{tmp_path / 'gone.jpg'}: no such file"
