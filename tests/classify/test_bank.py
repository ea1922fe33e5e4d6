"""The image bank: what it keeps, what it draws, and that a checkpoint brings it back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sfc.classify.bank import ImageBank

Batch = tuple[Tensor, Tensor, Tensor]


def batch(labels: list[list[int]], first: int = 0, side: int = 4) -> Batch:
    """Image i is filled with first + i, and so is its rectangle."""
    value = torch.arange(first, first + len(labels))
    image = value.to(torch.uint8)[:, None, None, None].expand(-1, 3, side, side).clone()
    return image, torch.tensor(labels, dtype=torch.float32), value[:, None].expand(-1, 4).clone()


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def held(bank: ImageBank) -> list[int | None]:
    return [None if slot is None else int(slot[0].flatten()[0]) for slot in bank.slots]


def test_keeps_the_last_image_of_every_class() -> None:
    bank = ImageBank(4)
    bank.put(*batch([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]]))
    assert held(bank) == [1, 2, None, None]
    bank.put(*batch([[0, 0, 0, 0], [0, 1, 1, 0]], first=10))
    assert held(bank) == [1, 11, 11, None]
    bank.put(*batch([[0, 0, 0, 0]], first=20))
    assert held(bank) == [1, 11, 11, None]


def test_equals_the_released_loop() -> None:
    """One image and one class at a time, in order."""
    labels = random(1).integers(0, 2, (6, 5, 7)).tolist()
    bank, slots = ImageBank(7), [None] * 7
    for step, rows in enumerate(labels):
        bank.put(*batch(rows, first=10 * step))
        for row, label in enumerate(rows):
            for class_index, shown in enumerate(label):
                if shown:
                    slots[class_index] = 10 * step + row
    assert held(bank) == slots


def test_label_and_rectangle_stay_with_their_image() -> None:
    bank = ImageBank(3)
    bank.put(*batch([[1, 0, 1], [0, 1, 0]], first=5))
    drawn = bank.draw(50, random())
    assert drawn is not None
    image, label, rectangle = drawn
    assert image.shape == (50, 3, 4, 4)
    assert image.dtype == torch.uint8
    assert label.dtype == torch.float32
    assert rectangle.dtype == torch.int64
    for i in range(50):
        value = int(image[i, 0, 0, 0])
        assert image[i].eq(value).all()
        assert rectangle[i].tolist() == [value] * 4
        assert label[i].tolist() == {5: [1, 0, 1], 6: [0, 1, 0]}[value]


@pytest.mark.parametrize("rows", [1, 3])
def test_owns_its_images(rows: int) -> None:
    """Neither later changes of the batch's memory nor of what was drawn reach the bank, and the batch can be freed."""
    image, label, rectangle = batch([[1, 1]] * rows)
    bank = ImageBank(2)
    bank.put(image, label, rectangle)
    image.fill_(99)
    label.zero_()
    drawn = bank.draw(1, random())
    assert drawn is not None
    drawn[0].fill_(77)
    assert held(bank) == [rows - 1] * 2
    for slot in bank.slots:
        assert slot is not None
        assert slot[1].tolist() == [1, 1]
        assert all(part.untyped_storage().nbytes() == part.nbytes for part in slot)


def test_draws_filled_slots_uniformly_and_never_an_empty_one() -> None:
    bank = ImageBank(6)
    bank.put(*batch([[1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 1]], first=1))
    count = 8000
    drawn = bank.draw(count, random(3))
    assert drawn is not None
    seen = np.bincount(drawn[0][:, 0, 0, 0].numpy(), minlength=4)
    # Image 3 holds two of the four filled slots.
    expected = np.array([0, 1 / 4, 1 / 4, 1 / 2]) * count
    assert seen[0] == 0
    chi_square = ((seen[1:] - expected[1:]) ** 2 / expected[1:]).sum()
    assert chi_square < 13.8  # 0.1 % of fair draws with two degrees of freedom exceed it


def test_draws_with_replacement_and_the_same_ones_for_the_same_generator() -> None:
    bank = ImageBank(2)
    assert bank.draw(4, random()) is None
    bank.put(*batch([[1, 0], [0, 1]]))
    assert bank.draw(0, random()) is None
    draws = [bank.draw(9, random(7)) for _ in range(2)]
    assert draws[0] is not None
    assert draws[1] is not None
    assert torch.equal(draws[0][0], draws[1][0])
    assert len(draws[0][0]) == 9


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="labels of 2 classes for a bank of 3"):
        ImageBank(3).put(*batch([[1, 0]]))
    with pytest.raises(ValueError, match="a bank of 2 classes cannot fill one of 3"):
        ImageBank(3).load_state_dict(ImageBank(2).state_dict())


def test_checkpoint_brings_everything_back_and_stores_shared_images_once(tmp_path: Path) -> None:
    side, classes = 64, 40
    bank = ImageBank(classes)
    # Image 0 shows the first 20 classes, image 1 the next 19, nothing the last.
    bank.put(*batch([[1] * 20 + [0] * 20, [0] * 20 + [1] * 19 + [0]], side=side))
    path = tmp_path / "bank.pt"
    torch.save(bank.state_dict(), path)
    one_image = 3 * side * side
    assert 2 * one_image < path.stat().st_size < 3.5 * one_image

    back = ImageBank(classes)
    back.load_state_dict(torch.load(path, weights_only=True))
    assert held(back) == held(bank) == [0] * 20 + [1] * 19 + [None]
    assert len({slot[0].data_ptr() for slot in back.slots if slot is not None}) == 2
    for bank_slot, back_slot in zip(bank.slots, back.slots, strict=True):
        if bank_slot is not None and back_slot is not None:
            for a, b in zip(bank_slot, back_slot, strict=True):
                assert a.dtype == b.dtype
                assert torch.equal(a, b)
    first, second = bank.draw(16, random(5)), back.draw(16, random(5))
    assert first is not None
    assert second is not None
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    # And saving again does not grow it.
    torch.save(back.state_dict(), path)
    assert path.stat().st_size < 3.5 * one_image


def test_a_resumed_bank_follows_the_batch_to_its_device() -> None:
    """A checkpoint loads to the CPU; the `meta` device stands for a GPU here."""
    first = ImageBank(2)
    first.put(*batch([[1, 0]]))
    bank = ImageBank(2)
    bank.load_state_dict(first.state_dict())
    bank.device = torch.device("meta")
    drawn = bank.draw(3, random())
    assert drawn is not None
    assert all(part.device.type == "meta" for part in drawn)
    bank.put(*batch([[0, 1]]))
    assert bank.device == torch.device("cpu")
