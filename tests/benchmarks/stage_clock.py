"""What the stages evaluate and stress take on a finished run's images, with the code of any commit.

    PYTHONPATH=CODE python tests/benchmarks/stage_clock.py quickstart RUN --out results

``CODE`` is a checkout, whose packages are taken; so two commits are timed one after the other in one call. The run stays as it is: the
stages write to a new folder under ``--out``. Printed are wall and processor seconds by stage, and how long the judges trained.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any


def clock(config: Any, run: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Wall and processor seconds by stage; ``config`` is a run's configuration, ``folder`` is where the stages write."""
    from pipeline import evaluate, stress
    from pipeline.context import Context
    from pipeline.progress import Reporter

    where = {"ingest": run / "ingest", "generate": run / "generate", "evaluate": folder / "evaluate"}
    found = {}
    for name, stage in (("evaluate", evaluate.run), ("stress", stress.run)):
        (folder / name).mkdir(parents=True)
        wall, processor = time.perf_counter(), time.process_time()
        stage(Context(config, folder, folder / name, Reporter(folder / "log.jsonl"), {}, where))
        found[name] = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
    return found


def main() -> None:
    """Time both stages and print it."""
    import evaluation
    from pipeline.config import load_config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="the run's configuration")
    parser.add_argument("run", type=Path, help="its folder")
    parser.add_argument("--set", action="append", default=[], help="as the run was given it")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="clock-", dir=options.out))
    print(f"code: {Path(str(evaluation.__file__)).parents[1]}")
    for name, seconds in clock(load_config(options.config, options.set), options.run, folder).items():
        print(f"{name}: {seconds['wall']:.0f} s, {seconds['processor']:.0f} s of processors", flush=True)
    training = json.loads((folder / "evaluate" / "evaluation.json").read_text())["training"]
    for name, course in {"encoder": training["encoder"], **training["arms"]}.items():
        print(f"{name}: kept at {course['images']} images of {course['curve'][-1][0]}, plateau {course['plateau']}")


if __name__ == "__main__":
    main()
