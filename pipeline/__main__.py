"""``python -m pipeline`` is ``synthcohort``."""

from pipeline.commands.main import main

if __name__ == "__main__":
    main()
