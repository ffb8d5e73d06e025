"""How robust is this image model? Accuracy under attack and corruption, with intervals, tables and a report page."""

from robust_bench import benchmarks as benchmarks
from robust_bench._distribution import __version__ as __version__
from robust_bench.evaluate import Interrupted as Interrupted
from robust_bench.evaluate import evaluate as evaluate
from robust_bench.result import Result as Result
from robust_bench.result import Row as Row
from robust_bench.warning import EvaluationWarning as EvaluationWarning
from robust_bench.world import World as World

__all__ = ["EvaluationWarning", "Interrupted", "Result", "Row", "World", "__version__", "benchmarks", "evaluate"]
