"""What is said when a training leaves the numbers."""

from robust_train import checkpoint
from robust_train.run_folder import RunFolder
from robust_train.state import State


class Diverged(RuntimeError):  # noqa: N818 - reads as what happened
    """The loss, a weight or the logits are no longer numbers; the checkpoints from before are kept."""


def diverged(run: RunFolder, state: State) -> Diverged:
    """The error, which says where it happened, which checkpoint is left, and what may help."""
    kept = checkpoint.listed(run.checkpoints)
    last = f"the last checkpoint with finite weights is {kept[-1]}" if kept else "no checkpoint was written yet"
    means = ", ".join(f"{name} {value:.4g}" for name, value in state.window.means().items())
    return Diverged(
        f"the loss, a weight or the logits became NaN or infinite in the updates up to {state.update}"
        f"{f' ({means})' if means else ''}; {last}. "
        "Lower optimizer.lr, set clip, or use bf16 instead of fp16, in a new folder"
    )
