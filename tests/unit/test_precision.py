"""bfloat16 is used where the instructions for it may be used, and are quick."""

import os
import subprocess
import sys

import pytest

from evaluation.precision import bf16_pays


def test_a_cpu_that_is_kept_from_its_instructions_computes_in_float32():
    code = "from evaluation.precision import bf16_pays; print(bf16_pays('cpu'))"
    kept = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("told", "capability", "bf16", "amx", "pays"),
    [
        ({"cpu_name": "AMD EPYC 9B14"}, "AVX512", True, False, True),  # Zen 4
        ({"cpu_name": "Intel Xeon Platinum 8481C"}, "AVX512", True, True, True),  # Sapphire Rapids
        ({"cpu_name": "Intel Xeon"}, "AVX512", True, False, False),  # the same without AMX, or Cooper Lake
        ({"cpu_name": "Intel Xeon"}, "AVX512", False, False, False),
        ({"cpu_name": "AMD EPYC 9B14"}, "AVX2", True, False, False),
        ({}, "AVX512", True, False, True),  # torch does not say whose it is
        ({}, "DEFAULT", False, False, False),
    ],
)
def test_bfloat16_is_used_on_cpus_whose_units_for_it_are_quick(monkeypatch, told, capability, bf16, amx, pays):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: told, raising=False)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    assert bf16_pays("cpu") is pays
