"""Does SAM end in flat minima? The largest curvature of the loss where training with it and without it ends.

A small network (three convolutions, no batch norm) learns the pictures of the CIFAR sample in shared/data beside the
repository, with AdamW and one cycle of the learning rate, alone and under SAM. Sharpness is the
largest eigenvalue of the Hessian of the mean training loss, on images that are evenly spaced, by power iteration.
The seeds decide first weights, order and mirroring.

    nox -s bench -- optim/sharpness
"""

import io
import statistics
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from _pages import arguments, made_with, prose, publish, table, versions
from PIL import Image
from robust_models import create_model
from robust_optim import SAM
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.transforms.v2.functional import pil_to_tensor

SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10_sample" / "cifar10_sample.zip"
BATCH = 50
SEEDS = (0, 1)

Build = Callable[[torch.optim.Optimizer, nn.Module], torch.optim.Optimizer]
METHODS: dict[str, Build] = {
    "AdamW": lambda base, _: base,
    "SAM, rho 0.05": lambda base, model: SAM(base, rho=0.05, model=model),
}


def pictures(part: str, count: int) -> tuple[Tensor, Tensor]:
    """So many images of a part, evenly spaced over the classes, in [0, 1], and their labels."""
    with zipfile.ZipFile(SAMPLE) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith(f"{part}/") and name.endswith(".jpg"))
        classes = sorted({name.split("/")[1] for name in names})
        chosen = [names[i] for i in torch.linspace(0, len(names) - 1, count).long()]
        images = [pil_to_tensor(Image.open(io.BytesIO(archive.read(name)))) for name in chosen]
    return torch.stack(images).float() / 255, torch.tensor([classes.index(name.split("/")[1]) for name in chosen])


def batches(images: Tensor, labels: Tensor, random: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch in random order, with images mirrored at random."""
    for chosen in torch.randperm(len(images), generator=random).split(BATCH):
        mirrored = torch.rand(len(chosen), 1, 1, 1, generator=random) < 0.5
        yield torch.where(mirrored, images[chosen].flip(3), images[chosen]), labels[chosen]


def train(build: Build, images: Tensor, labels: Tensor, epochs: int, seed: int) -> nn.Module:
    """A network after so many epochs."""
    torch.manual_seed(seed)
    model = create_model("small_cnn_32", num_classes=10, in_chans=3).to(memory_format=torch.channels_last)
    random = torch.Generator().manual_seed(seed)
    optimizer = build(torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=5e-4), model)
    updates = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=updates)
    for _ in range(epochs):
        for x, y in batches(images, labels, random):

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                optimizer.zero_grad()
                loss = cross_entropy(model(x), y)
                loss.backward()  # type: ignore[no-untyped-call]
                return loss

            optimizer.step(closure)  # type: ignore[arg-type]
            schedule.step()
    return model.eval()


def largest_eigenvalue(model: nn.Module, images: Tensor, labels: Tensor, steps: int = 40) -> float:
    """Of the Hessian of the mean loss over the weights, the largest in absolute value: to half a per cent."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(cross_entropy(model(images), labels), weights, create_graph=True)
    random = torch.Generator().manual_seed(0)
    direction = [torch.randn(weight.shape, generator=random) for weight in weights]
    value = 0.0
    for _ in range(steps):
        length = sum(float(d.square().sum()) for d in direction) ** 0.5
        direction = [d / length for d in direction]
        product = torch.autograd.grad(gradients, weights, grad_outputs=direction, retain_graph=True)
        found = sum(float((p * d).sum()) for p, d in zip(product, direction, strict=True))
        if abs(found - value) <= 3e-3 * abs(found):
            return found
        value, direction = found, list(product)
    return value


@torch.inference_mode()
def evaluated(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Accuracy in per cent and mean loss."""
    logits = torch.cat([model(part) for part in images.split(500)])
    return 100 * (logits.argmax(1) == labels).float().mean().item(), cross_entropy(logits, labels).item()


def main() -> None:
    """Train, measure, publish."""
    given = arguments(__doc__, images=1000)
    torch.set_num_threads(1)
    epochs, seeds = (1, (0,)) if given.quick else (15, SEEDS)
    images, labels = pictures("train", 200 if given.quick else given.images)
    test = pictures("test", 100 if given.quick else 2000)
    looked = torch.linspace(0, len(images) - 1, min(500, len(images))).long()
    rows = []
    for name, build in METHODS.items():
        found = []
        start = time.process_time()
        for seed in seeds:
            model = train(build, images, labels, epochs, seed)
            sharpness = largest_eigenvalue(model, images[looked], labels[looked])
            found.append((sharpness, *evaluated(model, images, labels), *evaluated(model, *test)))
            print(name, seed, [f"{value:.3f}" for value in found[-1]], flush=True)
        columns = list(zip(*found, strict=True))
        rows.append(
            {"name": name, "sharpness": columns[0], "training_accuracy": columns[1], "training_loss": columns[2]}
            | {"accuracy": columns[3], "loss": columns[4], "seconds": (time.process_time() - start) / len(seeds)}
        )
    lines = ["# Sharpness of the minima", ""]
    lines += prose(
        f"A small CNN on {len(images):,} pictures of the CIFAR sample, {epochs} epochs, batch {BATCH}, AdamW 0.002 "
        f"in one cycle, {len(seeds)} seeds: mean (lowest-highest) of the largest eigenvalue of the Hessian of the "
        f"training loss, of the loss and accuracy on the training pictures, and of those on {len(test[0]):,} others."
    )
    lines += ["", *table(
        ["method", "largest eigenvalue", "training loss", "training accuracy, %", "test loss", "test accuracy, %"],
        [
            [
                row["name"],
                spread(row["sharpness"], 1),
                spread(row["training_loss"], 2),
                spread(row["training_accuracy"], 1),
                spread(row["loss"], 2),
                spread(row["accuracy"], 1),
            ]
            for row in rows
        ],
    )]  # fmt: skip
    lines += ["", *prose(made_with("robust-optim", "robust-models"))]
    publish(lines, {"rows": rows, "versions": versions("robust-optim", "robust-models")}, given.out)


def spread(values: tuple[float, ...], digits: int) -> str:
    """Mean, and the lowest and highest."""
    return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


if __name__ == "__main__":
    main()
