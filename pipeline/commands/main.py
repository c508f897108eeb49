"""The entry point. Exit codes: 0 done, 2 the user's input is wrong (one line says what and how to mend it), 3 the gate says ``fail``,
4 the gate says ``inconclusive``, 143 stopped by SIGTERM with a checkpoint, 1 a bug. ``torchrun`` turns all but 0 into its own 1.
"""

from __future__ import annotations

import sys

from pipeline import ranks
from pipeline.commands.app import app
from pipeline.errors import InputError, Stopped

# isort: off
from pipeline.commands import runs, foreign, releases, phantoms  # noqa: F401 (they join the application, in the order of its help)


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
