import torch
from robust_attacks._adam import adam_step


def test_it_is_torch_adam_with_a_decaying_rate():
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(3, 4, generator=generator, dtype=torch.float64)
    oracle = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([oracle], lr=0.05, maximize=True)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.95)
    ours, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step in range(35):
        oracle.grad = torch.randn(3, 4, generator=generator, dtype=torch.float64) * 10.0 ** (step % 7 - 5)
        ours = ours + adam_step(oracle.grad, first, second, step + 1, 0.05 * 0.95 ** (step // 10))
        optimizer.step()
        scheduler.step()
        torch.testing.assert_close(ours, oracle.detach(), rtol=1e-12, atol=1e-12)


def test_without_a_gradient_nothing_moves():
    zeros = torch.zeros(2)
    assert torch.equal(adam_step(zeros, zeros.clone(), zeros.clone(), 1, 0.1), zeros)
