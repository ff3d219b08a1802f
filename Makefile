# Everything a fresh clone needs: make setup | test | test-all | test-fast | check | demo | example | similarity | faults
# | bench | bench-long | bench-gpu | clean.
# `make PYTHON=python3.12 setup` chooses another interpreter (3.10 or newer).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RECIPE := configs/quickstart.yaml
DEMO_DATA := data/synthetic
DEMO_RUN := runs/demo
TIMES := 1

# Small tensors on few cores: the threads of every process only get in each other's way.
test test-all test-fast check faults: export OMP_NUM_THREADS ?= 1
# Where Python was told to keep no compiled modules, each of very many processes would compile them.
test test-all test-fast check faults: export PYTHONDONTWRITEBYTECODE :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export RAY_USAGE_STATS_ENABLED ?= 0

.PHONY: setup test test-all test-fast check demo example similarity faults bench bench-long bench-gpu clean
.DEFAULT_GOAL := test

setup: $(INSTALLED)

$(INSTALLED): setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo \
	  "Python 3.10 or newer is needed, and $(PYTHON) is older or absent: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo \
	  "Python's venv module does not work; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing into $(VENV): a few minutes and gigabytes, once"
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

# Quick tests run two at once, one by one as they come; then, whatever became of them, those of whole
# jobs, two files at once, whose tests share a cluster. Each part has a summary of its own.
QUICK := not ray and not slow
JOBS := -n 2 --dist loadfile --no-loadscope-reorder
test: setup
	@quick=0; $(BIN)/python -m pytest -n 2 -m '$(QUICK) and not again' || quick=$$?; \
	  $(BIN)/python -m pytest $(JOBS) -m '(ray or slow) and not again' && exit $$quick

# Also those whose property another test has: the same whole jobs on other storage, with other faults.
test-all: setup
	@quick=0; $(BIN)/python -m pytest -n 2 -m '$(QUICK)' || quick=$$?; \
	  $(BIN)/python -m pytest $(JOBS) -m 'ray or slow' && exit $$quick

# The short ones, in less than a minute on two cores: for every change.
test-fast: setup
	$(BIN)/python -m pytest -n 2 -m '$(QUICK) and not again and not long'

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy msvqa
	$(BIN)/python -m pytest -q tests/test_architecture.py

# The whole job on a synthetic data set, which the first command writes. Each line is what a user
# would type; a second `make demo` continues where the first one was stopped.
demo: setup
	$(BIN)/msvqa doctor $(RECIPE) --data $(DEMO_DATA)
	$(BIN)/msvqa prepare synthetic --root $(DEMO_DATA) word_size=64
	$(BIN)/msvqa extract $(RECIPE)
	$(BIN)/msvqa train $(RECIPE) name=$(notdir $(DEMO_RUN))
	$(BIN)/msvqa evaluate $(DEMO_RUN) --split test
	@# The last line of the mapping names a video of the test split.
	$(BIN)/msvqa predict $(DEMO_RUN) "$(DEMO_DATA)/video/$$(tail -n 1 $(DEMO_DATA)/youtube_mapping.txt | cut -d ' ' -f 1).avi" "what moves?"
	$(BIN)/msvqa report $(DEMO_RUN)

# Two encoders outside the package, aligned on generated videos with captions: what a model of one's
# own takes is the two files that the recipe and this command name.
example: export PYTHONPATH := examples/clip_pair
example: setup
	$(BIN)/python examples/clip_pair/generate.py data/clip-pair
	$(BIN)/msvqa train examples/clip_pair/recipe.yaml
	$(BIN)/msvqa evaluate runs/clip-pair --split test
	$(BIN)/msvqa evaluate runs/clip-pair --on backwards
	$(BIN)/msvqa report runs/clip-pair

# Similarity from generated records to what a contest takes: eleven folds, pre-trained once, merged.
similarity: setup
	$(BIN)/msvqa tune configs/similarity/quickstart.yaml configs/search/eleven_folds.yaml
	$(BIN)/msvqa merge runs/similarity-folds/trial-* --on test_b --out runs/similarity-folds/merged

# Kills, stops, fills disks and damages files for real; prints what was survived and what was lost.
faults: setup
	$(BIN)/python -m tests.faults --times $(TIMES)

# Ratios beside their targets, and counts that must be exact; a dated table in benchmarks/results/.
# Some rows: make bench ROWS='D1 D2'.
bench: setup
	$(BIN)/python -m benchmarks $(ROWS)

bench-long: setup
	$(BIN)/python -m benchmarks $(ROWS) --profile long

bench-gpu: setup
	$(BIN)/python -m benchmarks $(ROWS) --profile gpu

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
