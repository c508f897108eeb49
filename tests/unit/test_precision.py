"""bfloat16 is used where the instructions for it may be used."""

import os
import subprocess
import sys


def test_a_cpu_that_is_kept_from_its_instructions_computes_in_float32():
    code = "from evaluation.precision import bf16_pays; print(bf16_pays('cpu'))"
    kept = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept)
    assert done.stdout.strip() == "False"
