"""Attention of the denoiser's network against its formula."""

import math

import pytest
import torch

from pipeline.diffusion.layers import attend


@pytest.mark.parametrize("masked", [False, True])
def test_attention_on_a_cpu_is_exact_under_bfloat16(masked):
    """softmax(q kᵀ / √d) v (Vaswani et al. 2017, eq. 1), over what is there."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, 2, length, 48, generator=generator).bfloat16() for length in (64, 45, 45))
    there = torch.rand(3, 1, 1, 45, generator=generator) > 0.3 if masked else None
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(query, key, value, there)
    scores = query.double() @ key.double().mT / math.sqrt(48)
    if there is not None:
        scores = scores.masked_fill(~there, -math.inf)
    torch.testing.assert_close(found.double(), scores.softmax(dim=-1) @ value.double(), atol=1e-5, rtol=0)
