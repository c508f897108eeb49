"""What is compiled computes what the same code does uncompiled."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.unet import UNet
from pipeline.runtime import autocast, compiled


def gradients(loss, denoiser: Denoiser, inputs: tuple[Tensor, ...], device: str) -> list[Tensor]:
    denoiser.zero_grad(set_to_none=True)
    torch.manual_seed(7)
    with autocast(device):
        total = loss(*inputs).mean()
    total.backward()
    return [p.grad.float().flatten().clone() for p in denoiser.parameters() if p.grad is not None]


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize(
    ("device", "batch", "widths"),
    [
        pytest.param("cpu", 8, (16, 32), marks=pytest.mark.slow),
        pytest.param("cuda", 256, (128, 256), marks=GPU),
        pytest.param("cuda", 512, (128, 256), marks=GPU),
    ],
)
def test_a_compiled_gradient_with_dropout_is_the_uncompiled_one(device, batch, widths):
    from torch._inductor import config

    torch._dynamo.reset()
    torch.manual_seed(0)
    network = UNet(channels=1, classes=2, size=28, widths=widths, blocks=2, attention=(7,), patch=2, dropout=0.1)
    denoiser = Denoiser(network, torch.zeros(1, 28, 28), 0.5).to(device).train()
    for weight in denoiser.parameters():  # layers that start at zero would hide those behind them
        if weight.ndim > 1 and not weight.detach().any():
            torch.nn.init.normal_(weight, std=0.02)
    images, noise = torch.rand(batch, 1, 28, 28, device=device) * 2 - 1, torch.randn(batch, 1, 28, 28, device=device)
    sigma, labels = torch.rand(batch, device=device) + 0.1, Condition.of_classes(torch.randint(2, (batch,)), 2, device)
    inputs = images, noise, sigma, labels, torch.zeros(batch, 7, device=device)
    with config.patch(fallback_random=True):  # the same masks for both
        plain, fast = (gradients(loss, denoiser, inputs, device) for loss in (denoiser.loss, compiled(denoiser.loss)))
    assert len(plain) == len(fast) > 100
    for expected, found in zip(plain, fast):
        assert (found - expected).norm() <= 0.5 * expected.norm() + 1e-4  # bfloat16, rounded at other places
