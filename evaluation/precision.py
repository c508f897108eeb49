"""In which precision matrix products run fastest on the machine at hand."""

from __future__ import annotations

import torch


def bf16_pays(where: str) -> bool:
    """Whether bfloat16 matrix products run at more than float32's speed there: recent GPUs, CPUs with AMX, and AMD's with AVX512-BF16.

    On Intel's with AVX512-BF16 alone (Cooper Lake; later Xeons in virtual machines that hide AMX) they do not: such a Xeon of 2023
    multiplies matrices at half of float32's speed by it, and takes 1.4 times as long for a training step of a judge or of the denoiser. A
    CPU that is kept from these instructions (ATEN_CPU_CAPABILITY=avx2) only emulates them, at a tenth of float32's speed.
    """
    if where == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    return bool(torch.cpu._is_amx_tile_supported() or (torch.cpu._is_avx512_bf16_supported() and not _of_intel()))


def _of_intel() -> bool:
    """Whether torch tells that the CPU is one of Intel's; its earlier versions do not tell."""
    told: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return str(told.get("cpu_name", "")).startswith("Intel")
