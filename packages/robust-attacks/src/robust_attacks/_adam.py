"""Adam as a function, for variables that have a row per image and rows that leave."""

from torch import Tensor


def adam_step(gradient: Tensor, first: Tensor, second: Tensor, age: int, rate: float) -> Tensor:
    """How far Adam moves along a gradient; the two moments are updated in place.

    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, arXiv:1412.6980, with the usual
    constants 0.9, 0.999 and 1e-8. Every number is computed for itself, so rows do not influence each other.

    Args:
        gradient: what to climb.
        first: running mean of the gradients, as `gradient`, at first zero.
        second: running mean of their squares, as `gradient`, at first zero.
        age: number of this step, from 1.
        rate: learning rate.
    """
    first.lerp_(gradient, 1 - 0.9)
    second.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
    size = (second / (1 - 0.999**age)).sqrt_().add_(1e-8)
    return (first * (rate / (1 - 0.9**age))).div_(size)
