# Everything sets itself up: a bare clone needs Python 3.11, 3.12 or 3.13, and make.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

FITS := import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
ROOTS := core runtime router services ruler workload loadgen sim client cli
PROTOS := $(sort $(wildcard proto/readahead/v1/*.proto))

export OMP_NUM_THREADS ?= 1

# Two tests at once, whole files each; see tests/support/lanes.py. LANES= runs one after the other.
LANES ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: env
env: ## Make or update .venv from the pinned requirements (READAHEAD_DEVICE=cpu|gpu, PYTHON=…)
	@if [ -z "$(PYTHON)" ]; then \
		echo "error: Python 3.11, 3.12 or 3.13 is needed, with venv (Debian: python3-venv)" >&2; \
		exit 1; \
	fi
	@$(PYTHON) tools/environment.py

.PHONY: up
up: env ## Start a cluster on this machine; ARGS="--decode 3 …" passes options on
	@exec $(BIN)/readahead up $(ARGS)

.PHONY: test
test: env ## Run the tests, real engines included
	$(BIN)/python -m pytest -m "not slow" $(LANES) $(ARGS)

.PHONY: test-slow
test-slow: env ## Run the tests that take minutes each
	$(BIN)/python -m pytest -m slow $(ARGS)

.PHONY: check
check: lint test ## Everything: lint and test

.PHONY: lint
lint: env ## Style, types, imports, protos, generated code, spelling, tidiness
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(ROOTS) tests tools benchmarks
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	$(BIN)/python tools/protos.py --check
	$(BIN)/codespell --skip "./build,./dist" --ignore-words-list hel,pase,datas,mape,te,trough
	$(BIN)/python -m pytest -q tests/repo

.PHONY: proto
proto: env ## Regenerate proto/gen
	$(BIN)/python tools/protos.py

.PHONY: bench
bench: env ## Measure the router's overhead and the core's speed
	@set -- benchmarks/bench_*.py; \
	[ -e "$$1" ] || { echo "error: there are no benchmarks" >&2; exit 1; }; \
	for script; do echo "== $$script"; $(BIN)/python "$$script"; done

.PHONY: fmt
fmt: env ## Format, and fix what can be fixed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: clean
clean: ## Remove what make and the tools have made; the cache of models stays
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
