"""The verbs of the command line as functions, for notebooks and programs; ``import synthcohort`` where the package is installed.

Each takes a configuration or folders and returns what it found; what the user gave wrong raises :class:`~pipeline.errors.InputError`, one
line that says how to mend it. Nothing heavy is imported before a stage needs it.
"""

from pipeline.api.consent import Place, Removal, purge, where
from pipeline.api.first import Beginning, init
from pipeline.api.foreign import Judgement, audit, release
from pipeline.api.generation import Generation, generate
from pipeline.api.models import StressTest, stress
from pipeline.api.phantoms import phantom
from pipeline.api.readings import reading, score_reading
from pipeline.api.releases import verify
from pipeline.api.runs import Outcome, cost, outlook, plan, run, show
from pipeline.api.settings import Setting, settings
from pipeline.config import Config, load_config, shipped
from pipeline.errors import InputError, NotEnough, Stopped

__all__ = [
    "Beginning",
    "Config",
    "Generation",
    "InputError",
    "Judgement",
    "NotEnough",
    "Outcome",
    "Place",
    "Removal",
    "Setting",
    "Stopped",
    "StressTest",
    "audit",
    "cost",
    "generate",
    "init",
    "load_config",
    "outlook",
    "phantom",
    "plan",
    "purge",
    "reading",
    "release",
    "run",
    "score_reading",
    "settings",
    "shipped",
    "show",
    "stress",
    "verify",
    "where",
]
