"""bfloat16 is used where the instructions for it may be used, and are quick."""

import os
import subprocess
import sys

import pytest

from evaluation import precision


def test_a_cpu_that_is_kept_from_its_instructions_computes_in_float32():
    code = "from evaluation.precision import bf16_pays; print(bf16_pays('cpu'))"
    kept = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("made", "capability", "bf16", "amx", "pays"),
    [
        ("AuthenticAMD", "AVX512", True, False, True),  # Zen 4
        ("GenuineIntel", "AVX512", True, True, True),  # Sapphire Rapids
        ("GenuineIntel", "AVX512", True, False, False),  # the same without AMX, or Cooper Lake
        ("GenuineIntel", "AVX512", False, False, False),
        ("AuthenticAMD", "AVX2", True, False, False),
        ("", "DEFAULT", False, False, False),
    ],
)
def test_bfloat16_is_used_on_cpus_whose_units_for_it_are_quick(monkeypatch, made, capability, bf16, amx, pays):
    monkeypatch.setattr(precision, "maker", lambda: made)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    assert precision.bf16_pays("cpu") is pays


def test_the_maker_is_what_linux_tells(tmp_path):
    table = tmp_path / "cpuinfo"
    table.write_text("processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\n\nprocessor\t: 1\nvendor_id\t: AuthenticAMD\n")
    assert precision.maker(table) == "AuthenticAMD"
    assert precision.maker(tmp_path / "none") == ""
