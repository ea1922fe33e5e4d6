"""What looks at a classifier between epochs: selection by ground truth (off by default) and CAM pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric

from sfc.classify.inference import infer_cams
from sfc.classify.network import SFCNetwork
from sfc.data.images import read_image
from sfc.data.pixels import resize_labels
from sfc.data.records import DataSet, evenly
from sfc.engine.checkpoint import load_checkpoint, save_checkpoint
from sfc.engine.processes import precision_of
from sfc.errors import ConfigError
from sfc.metrics.counts import ConfusionMatrix
from sfc.run.files import atomic_write
from sfc.settings.shared import MachineConfig

BEST = "best.pt"
SELECTION_IMAGES = 200
PICTURE_IMAGES = 6


class GroundTruthSelection:
    """Keeps the epoch whose fused CAMs score best against masks of training images.

    That uses what image-level labels do not give (the released code does it silently); `load_classifier` returns the
    words that go beside every score.

    Raises:
        ConfigError: no training image has a mask.
    """

    def __init__(
        self, fabric: Fabric, net: SFCNetwork, scoring: DataSet | None, machine: MachineConfig, folder: Path
    ) -> None:
        records = [] if scoring is None else evenly(scoring.with_masks().records, SELECTION_IMAGES)
        if not records:
            raise ConfigError("training.select ground_truth needs training images with masks (data.train_masks)")
        self.fabric, self.net, self.records, self.machine = fabric, net, records, machine
        self.path = folder / BEST
        self.num_classes = net.num_classes
        if fabric.is_global_zero and not (folder / "checkpoint.pt").exists():
            self.path.unlink(missing_ok=True)  # left by a training whose checkpoint was deleted to begin again

    def __call__(self, epoch: int) -> None:
        """Scores this epoch at one scale and saves it if it is the best so far."""
        if not self.fabric.is_global_zero:
            return
        matrix = ConfusionMatrix(self.num_classes + 1)
        for record in self.records:
            label = np.isin(np.arange(self.num_classes), record.labels)
            image = read_image(record.image, record.longest)
            keys, weight, prototype = infer_cams(self.net, image, label, (1.0,), precision=precision_of(self.machine))
            assert record.mask is not None
            truth = resize_labels(record.mask.load(), weight.shape[1:])
            matrix.update(truth, keys[(weight + prototype).argmax(axis=0)])
        score = float(matrix.areas().mean_iou())
        if not self.path.exists() or score > load_checkpoint(self.path)["score"]:
            content = {"model": self.net.state_dict(), "epoch": epoch, "score": score, "images": len(self.records)}
            save_checkpoint(self.path, content)


class Pictures:
    """Draws the CAMs of a few training images, the rarest classes first, into `folder`/pictures, and a page of them."""

    def __init__(
        self, fabric: Fabric, net: SFCNetwork, train: DataSet, machine: MachineConfig, every: int, folder: Path
    ) -> None:
        self.fabric, self.net, self.classes, self.machine, self.every = fabric, net, train.classes, machine, every
        self.folder = folder / "pictures"
        counts = train.class_counts()
        labelled = [record for record in train.records if record.labels]
        rarity = [min(counts[list(record.labels)]) for record in labelled]
        self.records = [labelled[i] for i in np.argsort(rarity, kind="stable")[:: max(1, len(labelled) // 50)]]
        self.records = self.records[:PICTURE_IMAGES]
        self._said = False

    def __call__(self, epoch: int) -> None:
        """Draws, if this epoch is one of those asked for."""
        if epoch % self.every or not self.fabric.is_global_zero:
            return
        from sfc.pictures.cams import CamPicture, draw_cams

        rows = []
        for record in self.records:
            image = read_image(record.image, record.longest)
            label = np.isin(np.arange(self.net.num_classes), record.labels)
            keys, weight, prototype = infer_cams(self.net, image, label, (1.0,), precision=precision_of(self.machine))
            rows.append(CamPicture(record.id, image, keys, weight, prototype))
        draw_cams(self.folder / f"epoch_{epoch:03d}.png", rows, self.classes)
        page = self._write_page()
        if not self._said:
            sys.stderr.write(f"CAMs so far, to look at while it trains: {page}\n")
            self._said = True

    def _write_page(self) -> Path:
        """All pictures so far, the newest first; a browser looks again by itself."""
        names = sorted((path.name for path in self.folder.glob("epoch_*.png")), reverse=True)
        numbered = [(name, int(name.removeprefix("epoch_").removesuffix(".png"))) for name in names]
        figures = "".join(f'<h2>Epoch {number}</h2><img src="{name}" alt="">' for name, number in numbered)
        head = '<meta charset="utf-8"><meta http-equiv="refresh" content="30"><title>CAMs so far</title>'
        style = "<style>body{font:16px system-ui,sans-serif;margin:1rem}img{max-width:100%}</style>"
        page = self.folder / "index.html"
        with atomic_write(page) as file:
            file.write(f"<!doctype html>{head}{style}<h1>CAMs so far</h1>{figures}".encode())
        return page
