"""Settings of a whole run: its data, its stages, its machine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from sfc.config.classify import BankConfig, ClassifyConfig, LocalizeConfig, LossConfig
from sfc.config.predict import PredictConfig
from sfc.config.refine import RefineConfig
from sfc.config.segment import SegmentConfig
from sfc.config.training import MachineConfig


@dataclass(frozen=True)
class DataConfig:
    """Which images, which labels, which masks.

    Args:
        format: the reader. `table`: CSV, TSV or JSON lines with columns image, labels and optionally mask. `voc`: a
            VOCdevkit/VOC2012 folder. `coco`: a folder with annotations/instances_*.json. `folders`: one sub-folder a
            class. `synthetic`: the built-in long-tail benchmark, written into the run folder.
        root: folder that relative paths start from.
        train: training split. table: file name; voc and coco: split name (`trainaug`, `train2014`); folders: folder.
        val: validation split, same forms; none when empty.
        train_masks: the training split with masks, used for scoring only; table: file name. VOC, COCO and the
            synthetic set know their training masks without it.
        classes: file with one class name a line; a first line `background` is allowed and skipped. Empty: inferred.
        label_separator: between the labels of one image in a table.
        labels_from: VOC only: image-level labels from the XML annotations or from the segmentation masks.
        difficult: VOC only: whether objects marked difficult count as labels.
        limit: use only the first so many images of each split (0: all); for trying things out.
        head_share: share of the classes, sorted by training images, that form the head.
        tail_share: share of the classes that form the tail.
        synthetic_images: images of the most frequent class of the synthetic set.
        synthetic_seed: seed of the synthetic set.
    """

    format: Literal["table", "voc", "coco", "folders", "synthetic"] = "table"
    root: str = "."
    train: str = "train.csv"
    val: str = ""
    train_masks: str = ""
    classes: str = ""
    label_separator: str = ";"
    labels_from: Literal["xml", "masks"] = "xml"
    difficult: bool = True
    limit: int = 0
    head_share: float = 1 / 3
    tail_share: float = 1 / 3
    synthetic_images: int = 480
    synthetic_seed: int = 0


@dataclass(frozen=True)
class EvaluateConfig:
    """Scores of the CAMs.

    Args:
        fusion_lambda: weight of the prototype CAM in the sum W + λP; 1 in the paper; the released code uses 0.7 and
            0.3 in later stages.
    """

    fusion_lambda: float = 1.0


@dataclass(frozen=True)
class RunConfig:
    """A whole run.

    Args:
        name: what tables and pages call this run.
        baseline: train plain CAM with the same budget too, and score both side by side.
    """

    name: str = "SFC"
    baseline: bool = True
    data: DataConfig = field(default_factory=DataConfig)
    classify: ClassifyConfig = field(default_factory=ClassifyConfig)
    localize: LocalizeConfig = field(default_factory=LocalizeConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    segment: SegmentConfig = field(default_factory=SegmentConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)

    @property
    def segmented_masks(self) -> str:
        """What the segmenter learns from: a method of refinement, or `truth`."""
        return "truth" if self.segment.masks == "truth" else self.refine.method


def plain_cam(config: RunConfig) -> RunConfig:
    """The plain-CAM baseline of a run: the same code, data, network and schedule with every part of SFC off.

    Settings that act through those parts alone have one value in it, so that it stays the same whatever SFC's are.
    """
    classify = replace(
        config.classify,
        network=replace(config.classify.network, pixel_correlation=False, consistency_gradient=1.0),
        loss=LossConfig(prototype_weight=0.0, scale_weight=0.0, half_size_pass=False, coefficient="off"),
        bank=BankConfig(draws=0),
    )
    return replace(config, name="plain CAM", baseline=False, classify=classify)
