"""Masks of images by a trained segmenter: one scale and its mirror."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor

from sfc.config import MachineConfig
from sfc.data.images import mask_path, read_image, write_mask
from sfc.data.pixels import normalise
from sfc.data.records import DataSet, Record
from sfc.image_work import claim, unfinished, work_through
from sfc.segment.networks import Segmenter

ORIGIN = "masks.json"
"""Says in a folder of masks what they were made from."""


@torch.no_grad()
def predict_probabilities(net: Segmenter, image: Tensor) -> Tensor:
    """Class probabilities of one image: mean over it and its mirror, each enlarged to the image as logits.

    Args:
        net: in evaluation mode.
        image: float [3, H, W], normalised.

    Returns:
        float32 [K, H, W], sums to 1 over K; 0 is the background.
    """
    logits = net(torch.stack([image, image.flip(-1)])).float()
    logits = F.interpolate(logits, size=image.shape[1:], mode="bilinear", align_corners=False)
    plain, mirrored = logits.softmax(dim=1)
    return (plain + mirrored.flip(-1)) / 2


def predict_masks(
    fabric: Fabric,
    net: Segmenter,
    dataset: DataSet,
    folder: Path,
    machine: MachineConfig,
    origin: Mapping[str, Any],
    title: str = "segmenter: masks",
) -> None:
    """Writes a mask for every image that does not have one yet; processes share the list by rank.

    An image at fault does not stop the others.

    Args:
        fabric: devices and processes.
        net: in evaluation mode.
        dataset: the images; neither labels nor masks are looked at.
        folder: gets a palette PNG for each image id, and a note of what they were made from.
        machine: precision and layout.
        origin: plain values that say which weights these are; masks of others are refused.
        title: shown beside the progress bar.

    Raises:
        ConfigError: the folder holds masks made by other weights.
        SFCError: some images were at fault, and all others are done.
    """
    claim(fabric, folder / ORIGIN, origin)
    todo = unfinished(fabric, dataset.records, lambda record: mask_path(folder, record.id))
    net = net.to(fabric.device)
    if machine.channels_last:
        net = net.to(memory_format=torch.channels_last)

    def work(record: Record) -> None:
        pixels = torch.from_numpy(read_image(record.image)).to(fabric.device).permute(2, 0, 1)[None]
        with torch.autocast(fabric.device.type, torch.bfloat16, enabled=machine.precision == "bf16"):
            probabilities = predict_probabilities(net, normalise(pixels)[0])
        write_mask(mask_path(folder, record.id), probabilities.argmax(dim=0).cpu().numpy().astype(np.uint8))

    work_through(fabric, todo, work, title, f"the masks of all other images are in {folder}")
