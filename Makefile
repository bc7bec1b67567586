# Two commands do everything on a fresh machine: `make demo` and `make test`. Both can be run again and again.
SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-portable crash fuzz lint clean bench bench-mct help

demo: $(VENV)/.ready ## set up, then the whole journey on scikit-learn's digits; writes demo/report.html
	$(BIN)/datafree demo --out demo

test: $(VENV)/.ready ## set up, then the tests
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-slow: $(VENV)/.ready ## the tests that `make test` leaves out: every smoke budget of the papers, all published accuracies
	$(BIN)/python -m pytest -n 2 -m slow $(ARGS)

test-portable: $(VENV)/.ready ## the tests once per thing that CPUs differ in (tests/portable.py); an hour on 2 cores
	$(BIN)/python tests/portable.py $(ARGS)

crash: $(VENV)/.ready ## every crash point, failing operation, random kills, power cuts (tests/crash); ARGS="--only pack"
	$(BIN)/python tests/crash/runner.py $(ARGS)

fuzz: $(VENV)/.ready ## spoilt files of every kind; ARGS="--seed 1 --mutants 20000"
	$(BIN)/python -m tests.fuzz $(ARGS)

lint: $(VENV)/.ready ## ruff, pyright, and that every package imports only those below it
	$(BIN)/ruff check src tests papers benchmarks examples
	$(BIN)/ruff format --check src tests papers benchmarks examples
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/.ready ## speed and memory of every synthesis method, as ratios in one run
	$(BIN)/python benchmarks/synthesis.py

bench-mct: .venv-mct/.ready ## beside Sony's model_compression_toolkit, in an environment of its own
	.venv-mct/bin/python benchmarks/mct.py

# It wants older pydantic and matplotlib than the tested ones, so those two are its own choice.
.venv-mct/.ready: pyproject.toml constraints/cpu.txt
	$(PYTHON) -m venv .venv-mct
	grep -viE '^(pydantic|pydantic_core|matplotlib)=' constraints/cpu.txt > .venv-mct/constraints.txt
	.venv-mct/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-mct/constraints.txt \
	  -e '.[quantize]' model_compression_toolkit==2.6.1 torchvision==0.28.0
	@touch $@

# Installed once for each content of pyproject.toml and constraints/cpu.txt; an install that broke off is done again.
$(VENV)/.ready: pyproject.toml constraints/cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "datafree needs Python 3.11 or newer, got: $$($(PYTHON) --version 2>/dev/null || echo none). Name one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "this Python has no venv module. Install it (Debian, Ubuntu: apt-get install python3-venv) and run make again" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints/cpu.txt
	@touch $@

clean: ## remove what make made
	rm -rf $(VENV) .venv-mct demo build dist

help:
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/'
