"""What a training step minimises, one method per file: the objective, and its section of a recipe beside it."""

from robust_train.objectives.adversarial import Adversarial as Adversarial
from robust_train.objectives.adversarial import AdversarialSettings as AdversarialSettings
from robust_train.objectives.advprop import AdvProp as AdvProp
from robust_train.objectives.advprop import AdvPropSettings as AdvPropSettings
from robust_train.objectives.alp import ALP as ALP
from robust_train.objectives.alp import ALPSettings as ALPSettings
from robust_train.objectives.ant import ANT as ANT
from robust_train.objectives.ant import ANTSettings as ANTSettings
from robust_train.objectives.apr_sp import APRSP as APRSP
from robust_train.objectives.apr_sp import APRSPSettings as APRSPSettings
from robust_train.objectives.augmix_jsd import AugMixJSD as AugMixJSD
from robust_train.objectives.augmix_jsd import AugMixJSDSettings as AugMixJSDSettings
from robust_train.objectives.free_at import FreeAT as FreeAT
from robust_train.objectives.free_at import FreeATSettings as FreeATSettings
from robust_train.objectives.gnt import GNT as GNT
from robust_train.objectives.gnt import GNTSettings as GNTSettings
from robust_train.objectives.grad_align import GradAlign as GradAlign
from robust_train.objectives.grad_align import GradAlignSettings as GradAlignSettings
from robust_train.objectives.helper_hat import HelperHAT as HelperHAT
from robust_train.objectives.helper_hat import HelperHATSettings as HelperHATSettings
from robust_train.objectives.hf_hat import HighFrequencyHAT as HighFrequencyHAT
from robust_train.objectives.hf_hat import HighFrequencyHATSettings as HighFrequencyHATSettings
from robust_train.objectives.mart import MART as MART
from robust_train.objectives.mart import MARTSettings as MARTSettings
from robust_train.objectives.objective import Context as Context
from robust_train.objectives.objective import Metrics as Metrics
from robust_train.objectives.objective import Objective as Objective
from robust_train.objectives.prime import PRIMESettings as PRIMESettings
from robust_train.objectives.prime import PRIMETraining as PRIMETraining
from robust_train.objectives.pyramid_at import PyramidAT as PyramidAT
from robust_train.objectives.pyramid_at import PyramidATSettings as PyramidATSettings
from robust_train.objectives.rspc import RSPC as RSPC
from robust_train.objectives.rspc import RSPCSettings as RSPCSettings
from robust_train.objectives.standard import Standard as Standard
from robust_train.objectives.standard import StandardSettings as StandardSettings
from robust_train.objectives.trades import TRADES as TRADES
from robust_train.objectives.trades import TRADESSettings as TRADESSettings

ObjectiveSettings = (
    StandardSettings
    | AdversarialSettings
    | ALPSettings
    | FreeATSettings
    | GradAlignSettings
    | HelperHATSettings
    | HighFrequencyHATSettings
    | MARTSettings
    | TRADESSettings
    | APRSPSettings
    | AugMixJSDSettings
    | GNTSettings
    | PRIMESettings
    | ANTSettings
    | AdvPropSettings
    | PyramidATSettings
    | RSPCSettings
)
"""The section `objective` of a recipe; its `name` chooses."""

__all__ = [
    "ALP",
    "ANT",
    "APRSP",
    "GNT",
    "MART",
    "RSPC",
    "TRADES",
    "AdvProp",
    "Adversarial",
    "AugMixJSD",
    "Context",
    "FreeAT",
    "GradAlign",
    "HelperHAT",
    "HighFrequencyHAT",
    "Metrics",
    "Objective",
    "ObjectiveSettings",
    "PRIMETraining",
    "PyramidAT",
    "Standard",
]
