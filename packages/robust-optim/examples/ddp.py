"""SAM on several processes: `torchrun --nproc-per-node 2 ddp.py`. NCCL where there are GPUs, gloo elsewhere."""

import os

import torch
import torch.distributed as dist
from robust_optim import SAM
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def main(epochs: int = 3) -> None:
    """Train a small network on synthetic images, brighter for the second class."""
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    dist.init_process_group("nccl" if on_gpu else "gloo")

    torch.manual_seed(0)
    labels = torch.randint(2, (256,))
    data = TensorDataset(torch.randn(256, 3, 16, 16) + 0.5 * labels[:, None, None, None], labels)
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=16, sampler=sampler)
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AvgPool2d(7), nn.Flatten(), nn.Linear(64, 2))
    model = DistributedDataParallel(network.to(device), device_ids=[device.index] if on_gpu else None)
    # sync="per_rank", the usual one: every rank has its own perturbation, and gradients are averaged once per update.
    # sync="global": all have that of one process with the whole batch, and gradients are averaged twice.
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.05, model=model)

    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for batch in loader:
            images, targets = (tensor.to(device) for tensor in batch)

            def closure(images: torch.Tensor = images, targets: torch.Tensor = targets) -> torch.Tensor:
                optimizer.zero_grad()
                loss = cross_entropy(model(images), targets)
                loss.backward()
                return loss

            loss = optimizer.step(closure)  # of this rank's images
        dist.all_reduce(loss)
        if dist.get_rank() == 0:
            print(f"epoch {epoch + 1}: mean loss {loss / dist.get_world_size():.3f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
