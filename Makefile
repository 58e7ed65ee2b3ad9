# Every target sets up what it needs, on a machine that has Python 3.11 or newer (with pip) and make.
# A second run is instant: what is done is marked by stamp files inside .venv.
#
#   make demo             the demo, on the embedded model
#   make test             what CI runs
#   make lock             the lock files after a change of pyproject.toml (UPGRADE=1: newer releases too)
#   make lock-rivals      the lock file of the rivals, after a change of bench/rivals.in
#   make prices           the prices of genai-prices anew, as a dated snapshot; read the difference before you commit it
#   make lock-prices      the lock file of genai-prices, after a change of tools/prices.in (UPGRADE=1: a newer release)
#   make bench            the benchmarks
#   make bench-rivals     Mains beside LangGraph, DBOS and pydantic-ai, which it installs in .venv-rivals
#   make lock-servers     the locks of the MCP servers that others wrote, after a change of tests/devices/servers.in or package.json
#   make torture          the crash tests at length, 10,000 seeds of the simulation (SEEDS=, SEED=: how many, from which),
#                         the conformance suite of MCP and devices that others wrote (with npm)
#   make clean            forget everything that make has made
#
# Another Python: make test PYTHON=python3.12

PYTHON ?= python3
UPGRADE ?=
SEEDS ?= 10000
SEED ?= 0

VENV := .venv
PY := $(VENV)/bin/python
RIVALS := .venv-rivals
PRICES := .venv-prices
SERVERS := .servers
# -qq: only errors speak.
PIP_INSTALL := $(PY) -m pip -qq --disable-pip-version-check --no-input install
STEP := @echo "==>"

.PHONY: help demo test lock lock-rivals lock-prices prices lock-servers bench bench-rivals torture clean
.NOTPARALLEL:

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.run
	$(STEP) "model: embedded engine"
	@$(VENV)/bin/mains engine fetch
	$(STEP) "demo: examples/digest"
	@$(PY) examples/digest/demo.py

test: $(VENV)/.dev
	$(STEP) "ruff check"
	@$(VENV)/bin/ruff check --quiet .
	$(STEP) "ruff format"
	@$(VENV)/bin/ruff format --check --quiet .
	$(STEP) "mypy"
	@$(VENV)/bin/mypy --no-error-summary
	$(STEP) "lint-imports"
	@$(VENV)/bin/lint-imports --no-logo
	$(STEP) "pytest"
	@$(PY) -m pytest -n 2

bench: $(VENV)/.dev
	@$(PY) -m bench

bench-rivals: $(VENV)/.dev $(RIVALS)/.made
	@$(PY) -m bench rivals kills waiting cap

prices: $(PRICES)/.made
	@$(PRICES)/bin/python tools/snapshot_prices.py

torture: $(VENV)/.dev $(SERVERS)/.made
	@$(PY) -m pytest tests/crash tests/devices tests/conformance --torture
	@$(PY) -m pytest -n auto tests/sim --torture --seeds $(SEEDS) --seed $(SEED)

clean:
	$(STEP) "clean"
	@rm -rf $(VENV) $(RIVALS) $(PRICES) $(SERVERS) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find src tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# ------------------------------------------------------------------------------------------------ environment
# Both environments live in one folder. The run lock is compiled with the full lock as its constraint, so the
# versions never differ, and the full one counts as both.

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "mains: no '$(PYTHON)' here; install Python 3.11 or newer, or name yours: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "mains: '$(PYTHON)' is older than Python 3.11; name a newer one: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "mains: '$(PYTHON) -m venv' does not work here; install it (Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(STEP) "environment: $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made requirements-run.lock pyproject.toml
	$(STEP) "packages: requirements-run.lock"
	@$(PIP_INSTALL) --require-hashes -r requirements-run.lock
	$(STEP) "package: mains"
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.made requirements.lock pyproject.toml
	$(STEP) "packages: requirements.lock"
	@$(PIP_INSTALL) --require-hashes -r requirements.lock
	$(STEP) "package: mains"
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $(VENV)/.run $@

# An environment of their own: what the rivals need never meets what Mains needs.
$(RIVALS)/.made: $(VENV)/.made bench/rivals.lock
	$(STEP) "environment: $(RIVALS)"
	@$(PYTHON) -m venv --clear $(RIVALS)
	$(STEP) "packages: bench/rivals.lock"
	@$(RIVALS)/bin/python -m pip -qq --disable-pip-version-check --no-input install --require-hashes -r bench/rivals.lock
	@touch $@

# The same for what the snapshot of prices is made from.
$(PRICES)/.made: $(VENV)/.made tools/prices.lock
	$(STEP) "environment: $(PRICES)"
	@$(PYTHON) -m venv --clear $(PRICES)
	$(STEP) "packages: tools/prices.lock"
	@$(PRICES)/bin/python -m pip -qq --disable-pip-version-check --no-input install --require-hashes -r tools/prices.lock
	@touch $@

# MCP servers that others wrote, and the official conformance suite with the node that it wants. Without npm the tests that
# need them are skipped, and say so.
$(SERVERS)/.made: $(VENV)/.made tests/devices/servers.lock tests/devices/package-lock.json
	$(STEP) "servers: tests/devices"
	@mkdir -p $(SERVERS)
	@$(PYTHON) -m venv --clear $(SERVERS)/venv
	@$(SERVERS)/venv/bin/python -m pip -qq --disable-pip-version-check --no-input install --require-hashes -r tests/devices/servers.lock
	@cp tests/devices/package.json tests/devices/package-lock.json $(SERVERS)/
	@if command -v npm >/dev/null; then cd $(SERVERS) && npm ci --silent --no-audit --no-fund && touch .made; \
	else echo "mains: NO npm HERE: the conformance suite and devices from npm are SKIPPED" >&2; fi

# ------------------------------------------------------------------------------------------------------- lock
# Made with the oldest Python that we support, so that no backport is missing. The machine's own pip settings
# (a constraint, a folder of wheels, another index) stay out: a lock is the same wherever it is made.

PIP_COMPILE := env -u PIP_CONSTRAINT -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null \
  CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --resolver=backtracking $(if $(UPGRADE),--upgrade)

lock: $(VENV)/.dev
	@$(PY) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "mains: make the locks with Python 3.11: make clean lock PYTHON=python3.11" >&2; exit 1; }
	$(STEP) "requirements.lock"
	@$(PIP_COMPILE) --extra dev --output-file requirements.lock pyproject.toml
	$(STEP) "requirements-run.lock"
	@$(PIP_COMPILE) --extra build --constraint requirements.lock --output-file requirements-run.lock pyproject.toml

lock-rivals: $(VENV)/.dev
	$(STEP) "bench/rivals.lock"
	@$(PIP_COMPILE) --output-file bench/rivals.lock bench/rivals.in

# npm's lock without the addresses it took things from: the hashes are what counts.
lock-servers: $(VENV)/.dev
	$(STEP) "tests/devices"
	@$(PIP_COMPILE) --output-file tests/devices/servers.lock tests/devices/servers.in
	@cd tests/devices && npm install --silent --package-lock-only --omit-lockfile-registry-resolved

lock-prices: $(VENV)/.dev
	$(STEP) "tools/prices.lock"
	@$(PIP_COMPILE) --output-file tools/prices.lock tools/prices.in
