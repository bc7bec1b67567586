# Two commands do everything on a fresh machine: `make demo` and `make test`. Both can be run again.
SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := python -m pip install --quiet --disable-pip-version-check
# Where pip takes torch from. On Linux the default, PyPI, brings several gigabytes of CUDA packages; the build for CPUs is
# make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

.PHONY: demo test test-slow test-portable test-lowest crash fuzz lint docs docs-setup wheel-check clean bench bench-mct help

demo: $(VENV)/.ready ## set up, then the whole journey on scikit-learn's digits; writes demo/report.html
	$(BIN)/datafree demo --out demo

test: $(VENV)/.ready ## set up, then the tests
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-slow: $(VENV)/.ready ## the tests that `make test` leaves out: every smoke budget of the papers, all published accuracies
	$(BIN)/python -m pytest -n 2 -m slow $(ARGS)

test-portable: $(VENV)/.ready ## the tests once per thing that CPUs differ in (tests/portable.py); an hour on 2 cores
	$(BIN)/python tests/portable.py $(ARGS)

test-lowest: .venv-lowest/.ready ## the core tests with the oldest supported packages, without the quantize extra
	.venv-lowest/bin/python -m pytest $(or $(ARGS),$(LOWEST_TESTS))

crash: $(VENV)/.ready ## every crash point, failing operation, random kills, power cuts (tests/crash); ARGS="--only pack"
	$(BIN)/python tests/crash/runner.py $(ARGS)

fuzz: $(VENV)/.ready ## spoilt files of every kind; ARGS="--seed 1 --mutants 20000"
	$(BIN)/python -m tests.fuzz $(ARGS)

lint: $(VENV)/.ready ## ruff, pyright, and that every package imports only those below it
	$(BIN)/ruff check src tests papers benchmarks examples docs
	$(BIN)/ruff format --check src tests papers benchmarks examples docs
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: docs-setup ## set up, then build the documentation into site/; it needs no network to be read
	$(BIN)/python docs/build.py

docs-setup: $(VENV)/.docs-ready ## install what builds the documentation

wheel-check: $(VENV)/.ready ## build the sdist and the wheel, install the wheel in a fresh environment and use it
	rm -rf build/wheel-check
	$(BIN)/python -m build --no-isolation --outdir build/wheel-check .
	$(PYTHON) -m venv build/wheel-check/venv
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$(build/wheel-check/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dependencies.pth"
	build/wheel-check/venv/bin/$(PIP) --no-deps --no-index --ignore-installed build/wheel-check/*.whl
	cd build/wheel-check && venv/bin/python ../../tests/wheel_check.py

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

# Installed once for each content of pyproject.toml and constraints/cpu.txt; an interrupted install starts again.
$(VENV)/.ready: pyproject.toml constraints/cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "datafree needs Python 3.11 or newer, got: $$($(PYTHON) --version 2>/dev/null || echo none). Name one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "this Python has no venv module. Install it (Debian, Ubuntu: apt-get install python3-venv) and run make again" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/$(PIP) --index-url $(TORCH_INDEX) torch -c constraints/cpu.txt)
	$(BIN)/$(PIP) -e '.[dev]' -c constraints/cpu.txt
	@touch $@

$(VENV)/.docs-ready: $(VENV)/.ready
	$(BIN)/$(PIP) -e '.[docs]' -c constraints/cpu.txt
	@touch $@

# torchao 0.18 needs a newer torch, so nothing here imports it.
LOWEST_TESTS := tests/files tests/models tests/network tests/stats tests/records tests/losses tests/synthesis tests/fit \
  tests/commands/test_help.py

.venv-lowest/.ready: pyproject.toml constraints/lowest.txt
	$(PYTHON) -m venv .venv-lowest
	$(if $(TORCH_INDEX),.venv-lowest/bin/$(PIP) --index-url $(TORCH_INDEX) torch -c constraints/lowest.txt)
	.venv-lowest/bin/$(PIP) -e . pytest hypothesis safetensors -c constraints/lowest.txt
	@touch $@

clean: ## remove what make made
	rm -rf $(VENV) .venv-mct .venv-lowest demo build dist site

help:
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/'
