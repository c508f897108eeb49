"""What can be set in a configuration."""

from __future__ import annotations

from pipeline.config.describe import Setting as Setting
from pipeline.config.describe import nearest, sections
from pipeline.config.describe import settings as all_settings
from pipeline.errors import InputError


def settings(section: str | None = None) -> list[Setting]:
    """Every setting with its meaning, default, range and unit, in the order of a run.

    Args:
        section: those of one section, such as ``train``, or the one of this key, such as ``train.batch``.

    Raises:
        InputError: there is no such section or key.
    """
    found = [one for one in all_settings() if section is None or one.key == section or one.key.startswith(f"{section}.")]
    if not found:
        meant = nearest(str(section)) or "synthcohort settings lists the keys"
        raise InputError(f"no section or key {section}: the sections are {', '.join(sections())}; {meant}")
    return found
