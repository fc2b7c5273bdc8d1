# The words that the README, CI and people use. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first of these that runs and is new enough; choose another with `make PYTHON=... setup`.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.10 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Label Studio has requirements of its own, so it lives in its own environment. Somebody who has one already
# names it with LABEL_STUDIO_VENV; that one is used as it is.
ifeq ($(origin LABEL_STUDIO_VENV),undefined)
LABEL_STUDIO_VENV := .venv-label-studio
LABEL_STUDIO := $(LABEL_STUDIO_VENV)/.installed
endif
export LABEL_STUDIO_VENV

# Python compiles each module once, whatever the shell says: processes are started by the hundred.
unexport PYTHONDONTWRITEBYTECODE

# Idle threads of torch sleep instead of burning the cores that the others need.
export OMP_WAIT_POLICY ?= PASSIVE

TEST_PACKAGES := chromium redis-server postgresql

# As many processes as cores and memory carry; tests/support/side_by_side.py says what stays together.
SIDE_BY_SIDE := -n auto

.PHONY: faults help setup up check lint test suite thorough bench e2e sbom docs pictures constraints system-packages clean

help:  ## list the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(INSTALLED)  ## install Brushloop and its development tools into .venv

up: $(INSTALLED) $(LABEL_STUDIO)  ## start Label Studio, the backend, its worker and a demo project
	@exec $(BIN)/brushloop up

lint: $(INSTALLED)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint  ## lint, unit tests and the examples in the docstrings: seconds, no server
	$(BIN)/pytest tests/unit brushloop core export ingest ml_backend simulation

# Label Studio is installed here: the make below is told where it is, and takes that for somebody's own.
test: $(INSTALLED) $(LABEL_STUDIO) system-packages  ## everything that CI runs, with real servers and a real browser
	@$(MAKE) --no-print-directory --jobs=2 lint suite

suite: $(INSTALLED) $(LABEL_STUDIO) system-packages
	$(BIN)/pytest $(SIDE_BY_SIDE)

thorough: lint $(LABEL_STUDIO) system-packages  ## also kills by the dozen and much fuzz, with branch coverage: an hour
	$(BIN)/pytest $(SIDE_BY_SIDE) --thorough --cov --cov-report=term-missing:skip-covered --cov-report=html:test-artifacts/coverage

e2e: $(INSTALLED) $(LABEL_STUDIO) system-packages  ## the real Label Studio in a real browser
	$(BIN)/pytest tests/e2e

docs: $(INSTALLED)  ## build the documentation site into site/; a broken link ends it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pictures: $(INSTALLED) $(LABEL_STUDIO) system-packages  ## take the site's pictures anew, with the end-to-end test
	$(BIN)/pytest tests/e2e/test_loop.py
	cp test-artifacts/first-ten-minutes/*.jpg docs/pictures/first-ten-minutes/

FAULTS := slow_networks retry_after interrupted_rounds damaged_truth damaged_models clocks reconcile older_label_studio service_health odd_files fork_server lost_database backup

FAULTS_ON_BOTH := older_database unwritable_database upgrade contradictions

faults: $(INSTALLED) system-packages  ## what heals by itself, fault by fault, also on real processes
	$(BIN)/pytest $(SIDE_BY_SIDE) --thorough tests/faults $(FAULTS:%=tests/unit/test_%.py) \
		$(FAULTS_ON_BOTH:%=tests/integration/test_%.py)

bench: $(INSTALLED)  ## run a benchmark: make bench NAME=rle (ARGS="--data DIR --json FILE")
	$(BIN)/python -m bench $(NAME) $(ARGS)

sbom: $(INSTALLED)  ## dist/brushloop.cdx.json: what the product is made of (CycloneDX)
	@$(PYTHON) .ci/environment.py .venv-product constraints.txt -- ".[postgres,redis]"
	@mkdir -p dist
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --of JSON \
		--output-file dist/brushloop.cdx.json .venv-product/bin/python

system-packages:  ## what the tests need besides Python: a browser, Redis, PostgreSQL
	@.ci/system-packages $(TEST_PACKAGES)

constraints: $(INSTALLED) $(LABEL_STUDIO)  ## write what is installed now into both constraints files
	$(BIN)/python .ci/freeze.py $(BIN)/python > constraints.txt
	$(BIN)/python .ci/freeze.py $(LABEL_STUDIO_VENV)/bin/python > constraints-label-studio.txt

clean:  ## remove the environments and what tools left behind; .brushloop (your data) stays
	rm -rf $(VENV) .venv-label-studio .venv-product .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site *.egg-info test-artifacts .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Ours is installed from this checkout, so each clone has its own; Label Studio's holds nothing of it and is
# shared (SHARE_ENVIRONMENTS=0: not even that).
define make_environment
@test -n "$(PYTHON)" || { echo "Python 3.10 or newer is needed; name yours with make PYTHON=/path/to/python" >&2; exit 1; }
@$(PYTHON) .ci/environment.py
endef

$(INSTALLED): pyproject.toml constraints.txt .ci/environment.py
	$(make_environment) $(VENV) constraints.txt -- -e ".[dev]"

.venv-label-studio/.installed: constraints-label-studio.txt .ci/environment.py
	$(make_environment) --shared label-studio .venv-label-studio constraints-label-studio.txt -- label-studio setuptools
