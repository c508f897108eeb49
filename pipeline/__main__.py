"""``python -m pipeline`` is ``synthcohort``."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
