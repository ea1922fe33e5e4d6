"""Settings: one frozen dataclass a stage, defaults included.

A recipe (`configs/*.yaml`) holds only what differs from these defaults; `sfc run --config FILE --section.field VALUE`
overrides both. Unknown keys and ill-typed values fail. The resolved settings are saved in the run folder.
"""

from sfc.config.classify import BankConfig as BankConfig
from sfc.config.classify import ClassifierTrainingConfig as ClassifierTrainingConfig
from sfc.config.classify import ClassifyConfig as ClassifyConfig
from sfc.config.classify import LocalizeConfig as LocalizeConfig
from sfc.config.classify import LossConfig as LossConfig
from sfc.config.classify import NetworkConfig as NetworkConfig
from sfc.config.predict import PredictConfig as PredictConfig
from sfc.config.refine import CRFConfig as CRFConfig
from sfc.config.refine import LabelCRFConfig as LabelCRFConfig
from sfc.config.refine import RefineConfig as RefineConfig
from sfc.config.refine import RelationConfig as RelationConfig
from sfc.config.refine import SeedConfig as SeedConfig
from sfc.config.refine import WalkConfig as WalkConfig
from sfc.config.run import DataConfig as DataConfig
from sfc.config.run import EvaluateConfig as EvaluateConfig
from sfc.config.run import RunConfig as RunConfig
from sfc.config.run import plain_cam as plain_cam
from sfc.config.segment import SegmentConfig as SegmentConfig
from sfc.config.segment import SegmenterConfig as SegmenterConfig
from sfc.config.training import InputConfig as InputConfig
from sfc.config.training import MachineConfig as MachineConfig
from sfc.config.training import MaskedInputConfig as MaskedInputConfig
from sfc.config.training import TrainingConfig as TrainingConfig
