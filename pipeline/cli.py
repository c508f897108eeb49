"""The command line; each command is a few lines that call the stages.

Exit codes: 0 done, 2 the user's input is wrong (one line says what and how to mend it), 3 the gate says ``fail``, 4 the gate says
``inconclusive``, 143 stopped by SIGTERM with a checkpoint, 1 a bug. ``torchrun`` turns all but 0 into its own 1.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from pipeline import ranks
from pipeline.config import load_config
from pipeline.errors import InputError, Stopped
from pipeline.progress import Reporter

EXIT = {"pass": 0, "fail": 3, "inconclusive": 4}

app = typer.Typer(
    help="From medical images to a privacy-audited synthetic cohort.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False)

ConfigArgument = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped configuration.")]
Out = Annotated[Path | None, typer.Option(help="The run folder; runs/<name> by default.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a setting: --set train.batch=64. May be repeated.")]


@app.command()
def run(
    config: ConfigArgument,
    out: Out = None,
    set_: Set = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.")] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Replace finished stages that the configuration no longer fits.")] = False,
) -> None:
    """Run every stage that is not up to date: ingest, train, generate, audit, evaluate, stress, release."""
    from pipeline.show import show as show_run
    from pipeline.stages import BY_NAME, run_stages, verdict

    if until is not None and until not in BY_NAME:
        raise InputError(f"--until {until}: no such stage; the stages are {', '.join(BY_NAME)}")
    settings = load_config(config, set_ or ())
    folder = out or Path("runs") / settings.name
    steps = run_stages(settings, folder, Reporter(folder / "log.jsonl", console), until=until, redo=redo, keep=[Path(config)])
    if all(step.reason is None for step in steps):
        console.print(f"Nothing to do: all {len(steps)} stages of {escape(settings.name)} are up to date.")
    show_run(folder, console)
    if until in (None, "release"):
        raise typer.Exit(EXIT[verdict(folder)])


@app.command()
def plan(config: ConfigArgument, out: Out = None, set_: Set = None) -> None:
    """Say which stages would run, and why, without running anything."""
    from pipeline.ingest.source import source_digest
    from pipeline.stages import check
    from pipeline.stages import plan as plan_stages

    settings = load_config(config, set_ or ())
    folder = out or Path("runs") / settings.name
    check(settings, folder, [Path(config)])
    if folder.exists():
        steps = plan_stages(settings, folder, source_digest(settings, folder))
        for step in steps:
            console.print(f"{step.stage.name:<9} {'up to date' if step.reason is None else escape(step.reason)}")
    else:
        from pipeline.stages import STAGES

        for stage in STAGES:
            console.print(f"{stage.name:<9} new; writes {stage.writes}")
    if (why := settings.ingest.not_trainable()) is not None:
        raise InputError(f"{why}: run it with --until ingest")


@app.command()
def show(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Show what a run found, as tables."""
    from pipeline.show import show as show_run

    if not run.is_dir():
        raise InputError(f"no run folder {run.name}: give the folder that `synthcohort run` wrote, such as runs/quickstart")
    show_run(run, console)


@app.command()
def verify(
    release: Annotated[Path, typer.Argument(help="A release folder.")],
    run: Annotated[Path | None, typer.Option(help="Its run folder, to look for traces of the patients too.")] = None,
) -> None:
    """Check a release: checksums, gate, card, DICOM tags, no trace of patients."""
    from pipeline.release.verify import verify as verify_release

    if not release.is_dir():
        raise InputError(f"no release folder {release.name}: give a folder such as runs/quickstart/release")
    problems = verify_release(release, run)
    for problem in problems:
        console.print(f"[red]problem[/red] {escape(problem)}")
    if problems:
        raise InputError(f"{len(problems)} problems in {release.name}: do not publish it; release it again from its run")
    console.print(
        "The release is complete and as the gate judged it." if (release / "SHA256SUMS").exists() else "A refused release: no images."
    )


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="A folder to make; it must not exist.")],
    patients: Annotated[int, typer.Option(min=1, help="How many patients to draw.")] = 100,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    size: Annotated[int, typer.Option(min=32, max=2048, help="Side of the images in pixels.")] = 96,
) -> None:
    """Write a folder of phantom chest radiographs as DICOM files with labels.csv, full of invented identities, to try things on."""
    from pipeline.ingest.phantom import draw_patients
    from pipeline.ingest.phantom_dicom import write_cohort

    if out.exists():
        raise InputError(f"{out.name} exists: give a folder that does not")
    count = write_cohort(out, draw_patients(patients, seed), seed, size)
    console.print(f"{count} images of {patients} invented patients in {escape(str(out))}")


def main() -> None:
    """The entry point: :class:`InputError` becomes one line and exit code 2."""
    try:
        with ranks.joined() as driving:
            if driving:
                app()
    except InputError as error:
        message = " ".join(str(error).split())
        print(f"synthcohort: {message}", file=sys.stderr)
        raise SystemExit(2) from None
    except Stopped as error:
        print(f"synthcohort: {error}; the same command goes on from there", file=sys.stderr)
        raise SystemExit(143) from None
    except KeyboardInterrupt:
        print("synthcohort: interrupted; the same command goes on where it stopped", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
