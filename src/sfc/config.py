"""Settings of a whole run: a section a stage, each defined beside the code that it is for.

A recipe (`sfc recipes`) holds only what differs from the defaults; `sfc run --config NAME --section.field VALUE`
overrides both. Unknown keys, ill-typed values and numbers out of range fail. The resolved settings are saved in the run
folder.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser

from sfc.classify.config import ClassifyConfig
from sfc.data.readers import DataSection
from sfc.errors import ConfigError
from sfc.localize.config import LocalizeConfig
from sfc.methods import METHODS
from sfc.refine.config import RefineSection
from sfc.segment.config import PredictConfig, SegmentConfig
from sfc.settings.limits import NaturalNumber
from sfc.settings.parts import names_of
from sfc.settings.read import add_settings, load_settings, parse_overrides
from sfc.settings.shared import NONE, MachineConfig

if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = names_of(METHODS)


@dataclass(frozen=True)
class RunConfig:
    """A whole run.

    Args:
        methods: what to train, side by side with the same data, network and epochs: `cam`, `cam-half`,
            `cam-competing`, `sfc`, `sfc-released`, `sfc-paper`; the first is the baseline of tables and pictures.
        seed: of weights, order, augmentation and bank of every training; 10 in the released code.
    """

    methods: tuple[MethodName, ...] = ("cam", "sfc")
    seed: NaturalNumber = 10
    data: DataSection = field(default_factory=DataSection)
    classify: ClassifyConfig = field(default_factory=ClassifyConfig)
    localize: LocalizeConfig = field(default_factory=LocalizeConfig)
    refine: RefineSection = field(default_factory=RefineSection)
    segment: SegmentConfig = field(default_factory=SegmentConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)

    @property
    def longest(self) -> int | None:
        """The long side that larger photographs are worked on at: the largest that the classifier saw in training."""
        long_side = self.classify.input.long_side
        return None if long_side is None else long_side[1]

    def of_method(self, name: str) -> "RunConfig":
        """The settings of one of the methods."""
        method = METHODS[name]
        changed = replace(self, classify=method.change(self.classify))
        if method.fusion_lambda is None:
            return changed
        return replace(changed, refine=replace(changed.refine, fusion_lambda=method.fusion_lambda))


def load_config(recipes: Iterable[str | Path], overrides: Sequence[str] = ()) -> RunConfig:
    """Settings from recipes, later ones on top, and `--section.field=value` overrides; defaults for the rest.

    Args:
        recipes: files, or names of recipes of the package.
        overrides: as on the command line.

    Raises:
        ConfigError: a recipe is missing or damaged, a key is unknown, or a value has the wrong type or is out of range.
    """
    return checked(load_settings(RunConfig, recipes, parse_overrides(RunConfig, overrides)))


def add_run_settings(parser: ArgumentParser) -> None:
    """Adds `--config`, `--methods cam sfc` and an option for every other setting to a parser."""
    add_settings(parser, RunConfig, without=("methods",))
    names = Literal[tuple(METHODS)]  # type: ignore[valid-type]
    parser.add_argument("--methods", type=names, nargs="+", metavar="METHOD", help="what to train")


def checked(config: RunConfig) -> RunConfig:
    """Refuses what no single setting is to blame for. Raises ConfigError."""
    if not config.methods:
        raise ConfigError(f"methods must name at least one of {', '.join(METHODS)}")
    for name, network in (("classify", config.classify.network), ("segment", config.segment.network)):
        if network.backbone == "compact" and network.weights != NONE:
            raise ConfigError(
                f"{name}.network.weights is '{network.weights}', but the network 'compact' learns from scratch: none"
            )
    repeated = [name for name in config.methods if config.methods.count(name) > 1]
    if repeated:
        raise ConfigError(f"methods names {repeated[0]} twice")
    return config
