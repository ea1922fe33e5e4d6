"""Where each artifact of a run lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class VariantFolder:
    """One trained system of a run: SFC itself, or the plain-CAM baseline beside it."""

    root: Path

    @property
    def classify(self) -> Path:
        """checkpoint.pt, log.csv, TensorBoard events, pictures."""
        return self.root / "classify"

    def cams(self, split: str) -> Path:
        """The CAM store of a split."""
        return self.root / "cams" / split

    def masks(self, method: str) -> Path:
        """Masks of the training images by one method of refinement, a palette PNG each."""
        return self.root / "masks" / method

    @property
    def relation(self) -> Path:
        """The relation network: checkpoint.pt, log.csv, TensorBoard events."""
        return self.root / "relation"

    def segmenter(self, masks: str) -> Path:
        """The segmenter trained on masks of a method, or on `truth`: checkpoint.pt, log.csv, TensorBoard events."""
        return self.root / "segmenter" / masks

    def predictions(self, masks: str, split: str, way: str) -> Path:
        """That segmenter's masks of a split, predicted in one way (`PredictConfig.ways`), a palette PNG each."""
        return self.root / "predictions" / masks / split / way

    @property
    def scores(self) -> Path:
        """JSON with every score of this variant."""
        return self.root / "scores.json"


@dataclass(frozen=True)
class RunFolder:
    """A run: settings, manifest, one folder a variant, report."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.root / "config.yaml"

    @property
    def manifest(self) -> Path:
        """What made this run: versions, commit, command, data."""
        return self.root / "manifest.json"

    @property
    def synthetic_data(self) -> Path:
        """Where the built-in benchmark is written."""
        return self.root / "synthetic"

    @property
    def report(self) -> Path:
        """Page and pictures."""
        return self.root / "report"

    def variant(self, name: str) -> VariantFolder:
        """The folder of `sfc` or `plain`."""
        return VariantFolder(self.root / name)
