# `make quickstart` and `make test` need only Python >= 3.11 (PYTHON=python3.12 chooses one) and make.
PYTHON ?= python3
BIN = .venv/bin
# A process a core, up to four for memory's sake. The tests of a file stay together, since what they share is made once, and files in their
# order: the long ones come first.
PYTEST = $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# Images of Python set it, for layers that nothing runs in: here every worker would compile all that it imports, half of a short test's time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test test-all lint clean

quickstart: .venv/ready
	$(BIN)/synthcohort run quickstart

test: .venv/ready
	$(PYTEST) -m "not slow"

test-all: .venv/ready
	$(PYTEST)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/ready: requirements.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

clean:
	rm -rf .venv
