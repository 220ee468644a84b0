# `make help` lists the targets. VENV=folder puts the virtual environment elsewhere, PYTHON=program
# chooses the interpreter that makes it.

VENV ?= .venv
GOLDEN_VENV ?= .venv-golden
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell \
	$(name) -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $(name))))
# `-m` of pytest: .ci/run and check-long also run the slow tests.
TESTS ?= not slow

BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: help test check-long demo docs golden format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: $(INSTALLED) ## install everything the tests need from PyPI, then run the tests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "$(TESTS)"

check-long: ## the full forms of the slow tests, and all the others
	RT2_CHECK=full $(MAKE) test TESTS=

demo: $(INSTALLED) ## the main job in small: record, co-fine-tune, serve, drive; LONG=1: for longer
	$(BIN)/rt2 demo $(if $(LONG),--long)

docs: $(INSTALLED) ## write what is generated: docs/features.md, docs/gin.md, docs/model_sizes.md, the README's table, robot_data.md's
	$(BIN)/python docs/features.py
	$(BIN)/python docs/gin_reference.py
	$(BIN)/python docs/model_sizes.py
	$(BIN)/python docs/robot_data.py

golden: ## write tests/parity/golden.npz again, with transformers and torch in .venv-golden
	$(PYTHON) -m venv $(GOLDEN_VENV)
	$(GOLDEN_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		-r tests/parity/requirements.txt
	$(GOLDEN_VENV)/bin/python tests/parity/make_golden.py

format: $(INSTALLED) ## ruff: format, and mend what it can
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format --quiet

clean: ## remove the virtual environment and all caches
	rm -rf .venv .venv-golden build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache .jax_cache packages/rt2_client/build packages/rt2_client/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): setup.py pyproject.toml
	@test -n "$(PYTHON)" || { echo 'make: no Python 3.11 or later with venv and ensurepip found' \
		'(Debian: apt-get install python3.11-venv); or say which: make PYTHON=/path/to/python' >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]'
	@touch $@
