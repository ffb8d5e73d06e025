"""What is done to the images before the model sees them."""

from robust_bench.conditions.attacked import Attack as Attack
from robust_bench.conditions.attacked import Attacked as Attacked
from robust_bench.conditions.clean import Clean as Clean
from robust_bench.conditions.condition import Condition as Condition
from robust_bench.conditions.condition import Measuring as Measuring
from robust_bench.conditions.corrupted import Corrupted as Corrupted
from robust_bench.conditions.flips import Flips as Flips
from robust_bench.conditions.settings import identity as identity
from robust_bench.conditions.stored import Stored as Stored
from robust_bench.conditions.suite import Suite as Suite

__all__ = ["Attack", "Attacked", "Clean", "Condition", "Corrupted", "Flips", "Measuring", "Stored", "Suite", "identity"]
