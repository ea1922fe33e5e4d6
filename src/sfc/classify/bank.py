"""The image bank: the most recent training image of every class, to show rare classes more often."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

Sample = tuple[Tensor, Tensor, Tensor]


class ImageBank:
    """Image bank re-sampling (SFC, AAAI 2024, section 3.3).

    One slot a class. A slot that has not been filled yet is never drawn (the released code draws black images there).
    Under several processes each keeps its own bank.

    Args:
        num_classes: number of foreground classes C.
    """

    def __init__(self, num_classes: int) -> None:
        self.slots: list[Sample | None] = [None] * num_classes
        self.device = torch.device("cpu")

    def put(self, image: Tensor, label: Tensor, rectangle: Tensor, shown: Tensor | None = None) -> None:
        """Stores each image in the slot of every class that it shows; the last one of a batch stays.

        Args:
            image: [N, 3, H, W], any dtype (uint8 keeps the bank small).
            label: [N, C] of 0 and 1.
            rectangle: int64 [N, 4], the real pixels of each crop.
            shown: `label` in the host's memory, which is looked at so that nobody waits for a device; None: itself.

        Raises:
            ValueError: `label` has another number of classes than the bank.
        """
        if label.shape[1] != len(self.slots):
            raise ValueError(f"labels of {label.shape[1]} classes for a bank of {len(self.slots)}")
        self.device = image.device
        # Rows come in order, so the last one of a class stays.
        row_of = {class_index: row for row, class_index in (label if shown is None else shown).nonzero().tolist()}
        # Copies, so that the batch can be freed; classes of one image share its copy.
        copies = {row: (image[row].clone(), label[row].clone(), rectangle[row].clone()) for row in set(row_of.values())}
        for class_index, row in row_of.items():
            self.slots[class_index] = copies[row]

    def draw(self, count: int, generator: np.random.Generator) -> Sample | None:
        """Draws filled slots uniformly, with replacement.

        Returns:
            image [count, 3, H, W], label [count, C], rectangle [count, 4], on the device of the last `put`; None while
            the bank is empty or for `count` 0.
        """
        filled = [slot for slot in self.slots if slot is not None]
        if not filled or count == 0:
            return None
        chosen = [filled[i] for i in generator.integers(len(filled), size=count)]
        # Slots of a resumed run lie on the CPU until they are replaced.
        image, label, rectangle = (
            torch.stack([part.to(self.device) for part in parts]) for parts in zip(*chosen, strict=True)
        )
        return image, label, rectangle

    def state_dict(self) -> dict[str, Any]:
        """The slots; images held by several classes are stored once."""
        return {"slots": list(self.slots)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave.

        Raises:
            ValueError: the state has another number of classes.
        """
        if len(state["slots"]) != len(self.slots):
            raise ValueError(f"a bank of {len(state['slots'])} classes cannot fill one of {len(self.slots)}")
        self.slots = [None if slot is None else (slot[0], slot[1], slot[2]) for slot in state["slots"]]
