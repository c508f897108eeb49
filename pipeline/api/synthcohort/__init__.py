"""What ``import synthcohort`` gives: the wheel maps that name onto this folder, so that the project's folders keep theirs."""

from pipeline.api import *  # noqa: F403
from pipeline.api import __all__  # noqa: F401
