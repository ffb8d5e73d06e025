"""What is trained."""

from dataclasses import dataclass

from robust_train.settings.require import require


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What is trained: the arguments of `robust_models.create_model`.

    Args:
        name: a timm name or `small_cnn_8`, `small_cnn_32`.
        num_classes: number of logits; must agree with the data.
        in_chans: channels of the images; must agree with the data.
        img_size: for models that are tied to an image size (most transformers); None leaves the model's own.
        drop_rate: dropout before the classifier, in [0, 1).
        drop_path_rate: stochastic depth, in [0, 1).
        grad_checkpointing: compute activations again in the backward pass instead of keeping them, to save memory;
            running statistics of batch norms then move in both passes.
        weights: a file of weights to start from, read by `robust_models.load_weights`; None starts from random ones.
    """

    name: str
    num_classes: int
    in_chans: int
    img_size: int | None
    drop_rate: float
    drop_path_rate: float
    grad_checkpointing: bool
    weights: str | None

    def __post_init__(self) -> None:
        require(self.num_classes >= 2, f"num_classes must be at least 2, got {self.num_classes}")
        require(self.in_chans >= 1, f"in_chans must be at least 1, got {self.in_chans}")
        require(0 <= self.drop_rate < 1, f"drop_rate must lie in [0, 1), got {self.drop_rate}")
        require(0 <= self.drop_path_rate < 1, f"drop_path_rate must lie in [0, 1), got {self.drop_path_rate}")
