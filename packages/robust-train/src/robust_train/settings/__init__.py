"""The sections of a recipe, each a frozen dataclass without hidden defaults."""

from robust_train.settings.attack import AttackSettings as AttackSettings
from robust_train.settings.attack import BatchNorm as BatchNorm
from robust_train.settings.attack import FGSMAttack as FGSMAttack
from robust_train.settings.attack import NFGSMAttack as NFGSMAttack
from robust_train.settings.attack import Norm as Norm
from robust_train.settings.attack import PGDAttack as PGDAttack
from robust_train.settings.attack import Start as Start
from robust_train.settings.data import DigitsData as DigitsData
from robust_train.settings.data import FolderData as FolderData
from robust_train.settings.evaluation import EvaluationSettings as EvaluationSettings
from robust_train.settings.model import ModelSettings as ModelSettings
from robust_train.settings.optimizer import AverageSettings as AverageSettings
from robust_train.settings.optimizer import OptimizerSettings as OptimizerSettings
from robust_train.settings.require import require as require
from robust_train.settings.schedule import ConstantSchedule as ConstantSchedule
from robust_train.settings.schedule import CosineSchedule as CosineSchedule
from robust_train.settings.schedule import OneCycleSchedule as OneCycleSchedule
from robust_train.settings.schedule import StepSchedule as StepSchedule
from robust_train.settings.sharpness import AWPSettings as AWPSettings
from robust_train.settings.sharpness import ESAMSettings as ESAMSettings
from robust_train.settings.sharpness import GSAMSettings as GSAMSettings
from robust_train.settings.sharpness import LookSAMSettings as LookSAMSettings
from robust_train.settings.sharpness import SAMSettings as SAMSettings
from robust_train.settings.sharpness import SharpnessSettings as SharpnessSettings
