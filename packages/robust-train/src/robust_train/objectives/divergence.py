"""How far predictions are apart."""

from torch import Tensor
from torch.nn import functional

from robust_train.objectives.objective import widened


def kl_divergence(reference: Tensor, logits: Tensor) -> Tensor:
    """The divergence KL(p || q) (N,) of p = softmax(reference) and q = softmax(logits), both (N, K).

    In float32 at least, since for images that lie close together it is a small difference of large numbers. Gradients
    flow to both sides.

    Examples:
        >>> import torch
        >>> kl_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
        tensor([0.])
    """
    log_p, log_q = (functional.log_softmax(widened(values), dim=1) for values in (reference, logits))
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
