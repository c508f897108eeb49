"""The command line: thin commands over :mod:`pipeline.api`, one module a group; :func:`pipeline.commands.main.main` is the entry point."""
