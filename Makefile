# `make quickstart` and `make test` work on a fresh machine: they make .venv and install into it.
# Everything is written below this folder. Override: make PYTHON=python3.12 VENV=.venv-312 test

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2
PYTEST_ARGS ?=
QUICKSTART_ARGS ?=

.PHONY: help quickstart venv test lint format type unit wheel-check clean

help:
	@echo "make quickstart   train MAML-TRPO on 2D navigation, adapt to unseen goals, draw the curve"
	@echo "make test         everything that must pass: lint, types, wheel, tests (what CI runs)"
	@echo "make lint | type | wheel-check | unit     one of them; make unit PYTEST_ARGS='-k curve'"
	@echo "make format       rewrite the code in the house format"
	@echo "make venv         only install, for development"
	@echo "make clean        remove build products and caches (not $(VENV))"

quickstart: $(VENV)/.installed
	$(BIN)/metarl quickstart $(QUICKSTART_ARGS)

venv: $(VENV)/.installed-dev

test: lint type wheel-check unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(VENV)/.installed-dev
	$(BIN)/mypy

# One intra-op thread a worker: two torch processes with two threads each on two cores crawl.
unit: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

wheel-check: $(VENV)/.installed-dev
	$(BIN)/python scripts/check_wheel.py

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage MUJOCO_LOG.TXT

# Stamps: a second make installs nothing; a change of pyproject.toml or constraints.txt installs again.

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; sys.exit(0 if sys.version_info >= (3, 11) else \
	  "metarl needs Python 3.11 or newer, and $(PYTHON) is " + v + ": install one and run make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

# The optional extras are tested where they install.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@$(PIP) install --quiet -c constraints.txt -e '.[contrib,video,slurm,shipped]' \
	  || echo "note: the contrib, video, slurm and shipped extras do not install here; their tests will skip"
	@touch $@
