"""CAMs of one 500 × 375 photograph at four scales with mirror, against one scale after the other the plain way.

ResNet-50 with random weights, 20 classes, 3 of them in the image. Then an image a thread, as `localize` works: 1 × 1
convolutions by oneDNN against those that torch chooses. Then EfficientNet-Lite0 at three scales: images of one size
through the network together against one by one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F

from measure import Figure, begin, finish, has_fast_bf16, interleaved
from sfc.classify.inference import infer_cams, infer_cams_of_several
from sfc.classify.network import SFCNetwork
from sfc.engine.image_work import MOST_TOGETHER, one_image_a_thread
from sfc.localize.stage import PIXELS_TOGETHER
from sfc.networks.convolution import QuickConv2d
from training_step import make_network
from yardstick import PlainSFC, plain_infer_cams

CLASSES = 20


def make_image(height: int, width: int) -> np.ndarray:
    """Smooth random colours with some grain, uint8 [H, W, 3]."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, height // 25, width // 25, generator=generator)
    image = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)[0]
    image = image * 255 + 8 * torch.randn(image.shape, generator=generator)
    return image.clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def together(rounds: int) -> list[Figure]:
    """As many images at once as `localize` takes on a CPU, over one by one; the network of `voc_animals`."""
    torch.manual_seed(0)
    net = SFCNetwork("tf_efficientnet_lite0", CLASSES, pixel_correlation=False, prototypes="competing").eval()
    net.to(memory_format=torch.channels_last)
    label, rows = np.eye(CLASSES)[3], []
    for height, width in ((64, 64), (128, 128), (160, 240), (240, 320)):
        count = max(1, min(MOST_TOGETHER, PIXELS_TOGETHER // (height * width)))
        image = make_image(height, width)
        images = [np.roll(image, shift, axis=1) for shift in range(MOST_TOGETHER)]

        def in_batches(of: int, images: list[np.ndarray] = images) -> None:
            for first in range(0, MOST_TOGETHER, of):
                batch = images[first : first + of]
                infer_cams_of_several(net, batch, [label] * len(batch), (1.0, 0.5, 1.5))

        variants = {"one by one": partial(in_batches, 1), "together": partial(in_batches, count)}
        seconds = interleaved(variants, rounds)
        name = f"time, {count} images of {width} x {height} together / one by one"
        rows += [Figure(name, seconds["together"] / seconds["one by one"], at_most=1.1)]
    return rows


def a_thread_each(rounds: int) -> list[Figure]:
    """Photographs on a thread each, with `QuickConv2d` choosing for 1 × 1 weights over torch choosing."""
    threads, rows = torch.get_num_threads(), []
    image, label = make_image(240, 320), np.eye(CLASSES)[3]
    for name in ("resnet50", "tf_efficientnet_lite0", "mobilenetv3_large_100", "convnext_atto", "resnet18"):
        torch.manual_seed(0)
        net = SFCNetwork(name, CLASSES, pixel_correlation=False, prototypes="competing").eval()
        net.to(memory_format=torch.channels_last)

        def work(net: SFCNetwork = net) -> None:
            with one_image_a_thread(threads), ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda _: infer_cams(net, image, label, (1.0, 0.5, 1.5)), range(3 * threads)))

        def as_torch_chooses(work: Callable[[], None] = work) -> None:
            with patch.object(QuickConv2d, "is_pointwise", lambda _: False):
                work()

        seconds = interleaved({"oneDNN": work, "torch": as_torch_chooses}, rounds)
        rows.append(Figure(f"time, {name}, 1 x 1 by oneDNN / as torch chooses", seconds["oneDNN"] / seconds["torch"]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=2, default=(375, 500), help="height and width")
    arguments = parser.parse_args()
    header = begin("CAM inference")
    image = make_image(*arguments.size)
    net = make_network(CLASSES).eval()
    plain = PlainSFC(CLASSES)
    plain.load_state_dict(net.state_dict())
    # The three classes that win the most seeds: the prototype CAMs of others are zero, and would agree for nothing.
    keys, _, prototype = plain_infer_cams(plain, image, np.ones(CLASSES), scales=(0.5,))
    label = np.zeros(CLASSES, dtype=np.float32)
    label[keys[1:][prototype[1:].mean(axis=(1, 2)).argsort()[-3:]] - 1] = 1
    variants = {
        "plain": lambda: plain_infer_cams(plain, image, label),
        "fp32": lambda: infer_cams(net, image, label),
        "bf16": lambda: infer_cams(net, image, label, precision="bf16"),
    }
    cams = {name: run() for name, run in variants.items()}
    seconds = interleaved(variants, arguments.rounds, warm_up=0)
    bf16_bar = 3.0 if has_fast_bf16() else None
    rows = [
        Figure("throughput, fp32 / plain", seconds["plain"] / seconds["fp32"], at_least=1.3),
        Figure("throughput, bf16 / plain", seconds["plain"] / seconds["bf16"], at_least=bf16_bar),
    ]
    for index, which in ((1, "classifier CAM"), (2, "prototype CAM")):
        reference = cams["plain"][index]
        for name, bar in (("fp32", 1e-4), ("bf16", None)):
            off = np.linalg.norm(cams[name][index] - reference) / np.linalg.norm(reference)
            rows += [Figure(f"{which}: relative difference, {name} from plain", float(off), "", at_most=bar)]
        off = np.abs(cams["fp32"][index] - reference).max()
        rows += [Figure(f"{which}: largest difference, fp32 from plain", float(off), "", at_most=1e-4)]
    rows += [Figure(f"seconds an image, {name}", value, "s") for name, value in seconds.items()]
    finish(header, rows + a_thread_each(arguments.rounds) + together(arguments.rounds))


if __name__ == "__main__":
    main()
