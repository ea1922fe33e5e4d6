"""Where each artifact of a run lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class SystemFolder:
    """One trained system of a run: a method's classifier and all that is made with it."""

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

    def segmenter(self, source: str) -> Path:
        """The segmenter trained on masks of a method, or on `truth`: checkpoint.pt, log.csv, TensorBoard events."""
        return self.root / "segmenter" / source

    def predictions(self, source: str, split: str, way: str) -> Path:
        """That segmenter's masks of a split, predicted in one way (`PredictConfig.ways`), a palette PNG each."""
        return self.root / "predictions" / source / split / way

    def gallery(self, split: str) -> Path:
        """A page with all masks of a split, and its pictures."""
        return self.root / "gallery" / split

    @property
    def signs(self) -> Path:
        """JSON with what the maps say of themselves, without masks."""
        return self.root / "signs.json"

    @property
    def scores(self) -> Path:
        """JSON with every score of this system."""
        return self.root / "scores.json"


@dataclass(frozen=True)
class RunFolder:
    """A run: settings, manifest, one folder a method, report."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.root / "config.yaml"

    @property
    def manifest(self) -> Path:
        """What made this run: format of the folder, versions, commit, command."""
        return self.root / "manifest.json"

    @property
    def plan(self) -> Path:
        """The settings that `sfc plan` chose, with its reasons: a recipe."""
        return self.root / "plan.yaml"

    @property
    def plan_figures(self) -> Path:
        """JSON with what the plan saw and the time that it expects."""
        return self.root / "plan.json"

    @property
    def times(self) -> Path:
        """JSON with the seconds that each stage of each method took."""
        return self.root / "times.json"

    @property
    def own_data(self) -> Path:
        """Data that a reader makes itself: the built-in benchmark."""
        return self.root / "data"

    @property
    def report(self) -> Path:
        """Page and pictures."""
        return self.root / "report"

    def system(self, method: str) -> SystemFolder:
        """The folder of a method."""
        return SystemFolder(self.root / method)
