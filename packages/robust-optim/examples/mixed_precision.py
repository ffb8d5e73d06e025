"""SAM in mixed precision: `python mixed_precision.py`. On CUDA float16 with a GradScaler, elsewhere bfloat16."""

import torch
from robust_optim import SAM
from torch import nn
from torch.nn.functional import cross_entropy


def main(steps: int = 40) -> float:
    """Train a small network on synthetic images, brighter for the second class, and return the last loss."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if device == "cuda" else torch.bfloat16
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(256, 2)
    ).to(device)
    optimizer = SAM(
        torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        rho=0.05,
        model=model,
        scaler=torch.amp.GradScaler(device, enabled=dtype == torch.float16),  # bfloat16 needs none
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0),  # of gradients that are unscaled
    )

    for step in range(steps):
        labels = torch.randint(2, (64,), device=device)
        images = torch.rand(64, 3, 16, 16, device=device) + 0.2 * labels[:, None, None, None]

        def closure(images: torch.Tensor = images, labels: torch.Tensor = labels) -> torch.Tensor:
            optimizer.zero_grad()
            with torch.autocast(device, dtype=dtype):
                loss = cross_entropy(model(images), labels)
            optimizer.scaler.scale(loss).backward()  # unscaling, stepping and updating is the optimizer's
            return loss

        loss = optimizer.step(closure)
        if step % 10 == 9:
            print(f"step {step + 1}: loss {loss:.3f}, {optimizer.updates} updates")
    return float(loss)


if __name__ == "__main__":
    main()
