# Everything a fresh clone needs: make setup | test | test-fast | check | demo | clean.
# `make PYTHON=python3.12 setup` chooses another interpreter (3.10 or newer).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO_RECIPE := configs/quickstart.yaml
DEMO_RUN := runs/demo

# Small tensors on few cores: the threads of every process only get in each other's way.
test test-fast check: export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export RAY_USAGE_STATS_ENABLED ?= 0

.PHONY: setup test test-fast check demo clean
.DEFAULT_GOAL := test

setup: $(INSTALLED)

$(INSTALLED): setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo \
	  "Python 3.10 or newer is needed, and $(PYTHON) is older or absent: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo \
	  "Python's venv module does not work; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

# Quick tests run first and those that start Ray last; the summary at the end counts all of them.
test: setup
	$(BIN)/python -m pytest

test-fast: setup
	$(BIN)/python -m pytest -m 'not ray and not slow'

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy msvqa
	$(BIN)/python -m pytest -q tests/test_architecture.py

# The whole job on a synthetic data set: each line is what a user would type.
demo: setup
	$(BIN)/msvqa prepare synthetic --root demo/data
	$(BIN)/msvqa doctor $(DEMO_RECIPE) --data demo/data
	$(BIN)/msvqa extract $(DEMO_RECIPE)
	$(BIN)/msvqa train $(DEMO_RECIPE)
	$(BIN)/msvqa predict $(DEMO_RUN) "$$(ls demo/data/video/*.avi | tail -1)" "what moves?"
	$(BIN)/msvqa report $(DEMO_RUN)
	$(BIN)/msvqa evaluate $(DEMO_RUN) --split test

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
