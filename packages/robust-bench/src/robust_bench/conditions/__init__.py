"""What is done to the images before the model sees them."""

from robust_bench.conditions.attacked import Attack as Attack
from robust_bench.conditions.attacked import Attacked as Attacked
from robust_bench.conditions.attention_similarity import AttentionSimilarity as AttentionSimilarity
from robust_bench.conditions.clean import Clean as Clean
from robust_bench.conditions.condition import Condition as Condition
from robust_bench.conditions.condition import Measuring as Measuring
from robust_bench.conditions.corrupted import Corrupted as Corrupted
from robust_bench.conditions.flips import Flips as Flips
from robust_bench.conditions.flips import Generated as Generated
from robust_bench.conditions.occluded import Occluded as Occluded
from robust_bench.conditions.perturbed import Perturbed as Perturbed
from robust_bench.conditions.repeated import Repeated as Repeated
from robust_bench.conditions.semantic import Semantic as Semantic
from robust_bench.conditions.settings import identity as identity
from robust_bench.conditions.stored import Stored as Stored
from robust_bench.conditions.suite import Suite as Suite
from robust_bench.conditions.transferred import Transferred as Transferred

__all__ = [
    "Attack",
    "Attacked",
    "AttentionSimilarity",
    "Clean",
    "Condition",
    "Corrupted",
    "Flips",
    "Generated",
    "Measuring",
    "Occluded",
    "Perturbed",
    "Repeated",
    "Semantic",
    "Stored",
    "Suite",
    "Transferred",
    "identity",
]
