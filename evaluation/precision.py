"""In which precision matrix products run fastest on the machine at hand."""

from __future__ import annotations

import torch


def bf16_pays(where: str) -> bool:
    """Whether bfloat16 matrix products run at more than float32's speed there: recent GPUs, and CPUs with AVX512-BF16 or AMX.

    A CPU that is kept from these instructions (ATEN_CPU_CAPABILITY=avx2) only emulates them, at a tenth of float32's speed.
    """
    if where == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    allowed = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return bool(allowed and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()))
