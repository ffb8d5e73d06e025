"""What a training step minimises, one method per file: the objective, and its section of a recipe beside it."""

from robust_train.objectives.adversarial import Adversarial as Adversarial
from robust_train.objectives.adversarial import AdversarialSettings as AdversarialSettings
from robust_train.objectives.objective import Context as Context
from robust_train.objectives.objective import Metrics as Metrics
from robust_train.objectives.objective import Objective as Objective
from robust_train.objectives.standard import Standard as Standard
from robust_train.objectives.standard import StandardSettings as StandardSettings

ObjectiveSettings = StandardSettings | AdversarialSettings
"""The section `objective` of a recipe; its `name` chooses."""

__all__ = ["Adversarial", "Context", "Metrics", "Objective", "ObjectiveSettings", "Standard"]
