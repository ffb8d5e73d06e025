"""Train with SAM: `python plain.py`. The loader of synthetic images stands for your own."""

import torch
from robust_optim import SAM
from torch import nn
from torch.nn.functional import cross_entropy


def synthetic_images(count: int, classes: int = 4) -> torch.utils.data.TensorDataset:
    """Noise with one brighter quarter, which is the class."""
    labels = torch.randint(classes, (count,))
    images = torch.rand(count, 3, 16, 16)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = divmod(label, 2)
        image[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 0.3
    return torch.utils.data.TensorDataset(images, labels)


def main(epochs: int = 3) -> float:
    """Train a small network and return its accuracy on images that it has not seen."""
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(synthetic_images(512), batch_size=64, shuffle=True)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(256, 4)
    )
    base = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    optimizer = SAM(base, rho=0.05, model=model)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(loader))

    for epoch in range(epochs):
        for images, labels in loader:

            def closure(images: torch.Tensor = images, labels: torch.Tensor = labels) -> torch.Tensor:
                optimizer.zero_grad()
                loss = cross_entropy(model(images), labels)
                loss.backward()
                return loss

            loss = optimizer.step(closure)
            scheduler.step()
        print(f"epoch {epoch + 1}: loss {loss:.3f}")

    model.eval()
    images, labels = synthetic_images(256).tensors
    with torch.no_grad():
        accuracy = (model(images).argmax(1) == labels).float().mean().item()
    print(f"accuracy {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    main()
