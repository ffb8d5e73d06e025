"""Arithmetic on lists of tensors as if they were one long vector, in few kernels and without waiting for the device."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The L2 norm of each tensor, accumulated in float32 or better."""
    found: list[Tensor] = [torch.empty(0)] * len(tensors)
    for dtype in {tensor.dtype for tensor in tensors}:
        places = [i for i, tensor in enumerate(tensors) if tensor.dtype == dtype]
        wide = torch.promote_types(dtype, torch.float32)
        some = [tensors[i] for i in places]
        results = torch._foreach_norm(some, 2, dtype=None if wide == dtype else wide)
        for i, result in zip(places, results, strict=True):
            found[i] = result
    return found


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The L2 norm over all tensors together, on the device of the first: a scalar in float32, or float64 if one is."""
    lengths = [whole(length) for length in norms(tensors)]
    device, widest = lengths[0].device, _widest(lengths)
    total: Tensor = torch.linalg.vector_norm(torch.stack([length.to(device, widest) for length in lengths]))
    return total


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The inner product over all tensors together, on the device of the first: a scalar in float32 or float64."""
    products = []
    for x, y in zip(a, b, strict=True):
        wide = torch.promote_types(x.dtype, torch.float32)
        products.append(whole((x.to(wide) * y.to(wide)).sum()))
    device, widest = products[0].device, _widest(products)
    return torch.stack([product.to(device, widest) for product in products]).sum()


def scaled(tensors: Sequence[Tensor], factor: Tensor, factors: Sequence[float]) -> list[Tensor]:
    """New tensors `factor * factors[i] * tensors[i]`, with one scalar tensor and a number for each."""
    parts = [local(tensor) for tensor in tensors]
    results = [torch.empty(0)] * len(parts)
    for kind in {(part.device, number) for part, number in zip(parts, factors, strict=True)}:
        places = [i for i, part in enumerate(parts) if (part.device, factors[i]) == kind]
        device, number = kind
        some = torch._foreach_mul([parts[i] for i in places], (number * factor).to(device))
        for i, result in zip(places, some, strict=True):
            results[i] = result
    return results


def scale_(tensors: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply all tensors in place by a scalar tensor."""
    parts = [local(tensor) for tensor in tensors]
    for device in {part.device for part in parts}:
        torch._foreach_mul_([part for part in parts if part.device == device], factor.to(device))


def _widest(scalars: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(scalar.dtype == torch.float64 for scalar in scalars) else torch.float32


def whole(scalar: Tensor) -> Tensor:
    """The value over all shards, where the tensor is distributed over processes."""
    return scalar.full_tensor() if hasattr(scalar, "full_tensor") else scalar


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor that is distributed over processes, in the same memory; other tensors themselves."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def owned(tensor: Tensor) -> Tensor:
    """`tensor` itself, or a copy if it is part of a larger memory, which somebody else may write to.

    Under DistributedDataParallel with `gradient_as_bucket_view` the next backward pass writes where the gradients lie.
    """
    whole = local(tensor)
    return tensor if whole.untyped_storage().nbytes() == whole.nbytes and whole._base is None else tensor.clone()


def gradient_of(parameter: nn.Parameter) -> Tensor:
    """The gradient of a parameter that is known to have one."""
    assert parameter.grad is not None
    return parameter.grad
