"""What is known of the images of a call while an attack is going on."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Ledger:
    """The outcome of every run of every image so far; enough to go on after an interruption. All on the CPU but images.

    Args:
        adversarial: for each image the winning point, else that of the highest score, else the clean image.
        keep_best: False leaves the clean image also where there is a score.
        winner: the lowest run that won, int64 (N,); the number of runs where none has.
        leader: the run of the highest score, int64 (N,); the number of runs where none has one.
        score: of the leader, float64 (N,).
        finished: which runs are over, bool (N, runs).
        finite: whether all logits were finite, bool (N,).
        flips: wins that a second look did not confirm.
    """

    adversarial: Tensor
    keep_best: bool
    winner: Tensor
    leader: Tensor
    score: Tensor
    finished: Tensor
    finite: Tensor
    flips: int = 0

    @classmethod
    def of(cls, adversarial: Tensor, runs: int, keep_best: bool) -> "Ledger":
        """Nothing known yet; `adversarial` holds the clean images and is written to."""
        count = len(adversarial)
        return cls(
            adversarial=adversarial,
            keep_best=keep_best,
            winner=torch.full((count,), runs, device="cpu"),  # whatever the default device is
            leader=torch.full((count,), runs, device="cpu"),
            score=torch.full((count,), -torch.inf, dtype=torch.float64, device="cpu"),
            finished=torch.zeros(count, runs, dtype=torch.bool, device="cpu"),
            finite=torch.ones(count, dtype=torch.bool, device="cpu"),
        )

    @property
    def runs(self) -> int:
        """Runs an image gets at most."""
        return self.finished.shape[1]

    @property
    def won(self) -> Tensor:
        """Which images are broken, bool (N,)."""
        return self.winner < self.runs

    def record_win(self, row: int, run: int, point: Tensor) -> None:
        """A confirmed win; the point of the lowest run that wins is kept."""
        if run < self.winner[row]:
            self.adversarial[row] = point
            self.winner[row] = run  # last: an interruption may come between any two lines

    def record_best(self, row: int, run: int, point: Tensor, score: float) -> None:
        """What an exhausted run leaves behind; kept if it has the highest score (of equal ones: the lowest run)."""
        best = float(self.score[row])
        if score > best or (score == best > -torch.inf and run < self.leader[row]):
            self.score[row], self.leader[row] = score, run
            if self.keep_best and self.winner[row] == self.runs:
                self.adversarial[row] = point
