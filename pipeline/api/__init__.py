"""The verbs of the command line as functions, for notebooks and programs; ``import synthcohort`` where the package is installed.

Each takes a configuration or folders and returns what it found; what the user gave wrong raises :class:`~pipeline.errors.InputError`, one
line that says how to mend it. Nothing heavy is imported before a stage needs it.
"""

from pipeline.api.foreign import Judgement, audit, release
from pipeline.api.models import StressTest, stress
from pipeline.api.phantoms import phantom
from pipeline.api.releases import verify
from pipeline.api.runs import Outcome, plan, run, show
from pipeline.config import Config, load_config, shipped
from pipeline.errors import InputError, Stopped

__all__ = [
    "Config",
    "InputError",
    "Judgement",
    "Outcome",
    "Stopped",
    "StressTest",
    "audit",
    "load_config",
    "phantom",
    "plan",
    "release",
    "run",
    "shipped",
    "show",
    "stress",
    "verify",
]
