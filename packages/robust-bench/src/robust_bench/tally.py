"""How many images were right so far."""

from collections.abc import Sequence

from robust_bench.conditions import Condition
from robust_bench.judge import Tell
from robust_bench.progress import Bar
from robust_bench.records import Records
from robust_bench.result import Row
from robust_bench.shards import Summary


class Tally:
    """Counts per condition."""

    def __init__(self, conditions: tuple[Condition, ...]) -> None:
        self._conditions = conditions
        self.counts = [0] * len(conditions)
        self.correct = [0] * len(conditions)
        self.seconds = [0.0] * len(conditions)

    @classmethod
    def of(cls, conditions: tuple[Condition, ...], summaries: Sequence[Summary]) -> "Tally":
        """The counts of shards."""
        tally = cls(conditions)
        for number in range(len(conditions)):
            tally.counts[number] = sum(summary.images for summary in summaries)
            tally.correct[number] = sum(summary.correct[number] for summary in summaries)
            tally.seconds[number] = sum(summary.seconds[number] for summary in summaries)
        return tally

    @property
    def images(self) -> int:
        """Images that have been judged under all conditions."""
        return min(self.counts)

    def add(self, number: int, records: Records) -> None:
        """Count records of the condition of this number."""
        self.counts[number] += len(records)
        self.correct[number] += int(records.right.sum())
        self.seconds[number] += records.seconds

    def teller(self, shown: Bar) -> Tell:
        """What a judge tells: it is counted, and shown."""

        def tell(number: int, records: Records) -> None:
            self.add(number, records)
            label = self._conditions[number].label
            shown.advance(len(records), label, self.correct[number], self.counts[number])

        return tell

    def rows(self, benchmark: str) -> tuple[Row, ...]:
        """One row per condition that has been begun."""
        return tuple(
            Row.accuracy(
                benchmark=benchmark,
                condition=condition.label,
                settings=condition.settings,
                correct=correct,
                count=count,
                seconds=seconds,
            )
            for condition, correct, count, seconds in zip(
                self._conditions, self.correct, self.counts, self.seconds, strict=True
            )
            if count
        )
