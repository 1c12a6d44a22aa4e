# Everything runs from .venv, which is made at the first need and again when pyproject.toml has changed.
PYTHON ?= python3
BIN := .venv/bin
# Tests that start processes wait much of their time: twice as many as there are processors keep those busy.
TESTERS ?= $(shell echo $$(( $$(nproc 2>/dev/null || echo 2) * 2 )))

.DEFAULT_GOAL := help
.PHONY: help serve demo test lint format docs probe seeds bench costs kills clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

serve: .venv/ready ## Start the store and the API on 127.0.0.1:8080, data in ./hookline-data
	@exec $(BIN)/hookline serve

demo: .venv/ready ## Play a job's whole life on this machine, in under 30 seconds
	@exec $(BIN)/hookline demo

# They start some hundreds of processes, which must not compile every module anew, whatever the environment says.
test: export PYTHONDONTWRITEBYTECODE =
test: .venv/dev ## Run all tests
	$(BIN)/pytest -q -n $(TESTERS) --dist loadfile --no-loadscope-reorder

lint: .venv/dev ## Check formatting, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/ready ## Write docs/configuration.md from the table of settings
	$(BIN)/python -m hookline_server.cli.page > docs/configuration.md

kills: .venv/dev ## Deliver 10,000 events while servers are killed (some minutes)
	HOOKLINE_TEST_KILL_EVENTS=10000 $(BIN)/pytest -q tests/faults/test_relay_killed.py

seeds: .venv/dev ## Plant every known bug, and see that its test and the model find it (minutes)
	HOOKLINE_TEST_SEEDS=1 $(BIN)/pytest -q -n auto tests/seeded

probe: .venv/dev ## Hold the server against its API's document with hundreds of requests for each route (minutes)
	HOOKLINE_TEST_EXAMPLES=300 HOOKLINE_TEST_SEED=$$(date +%s) $(BIN)/pytest -q tests/server/test_schemathesis.py

bench: .venv/dev ## Measure this machine, each figure beside its floor (about 5 minutes); ARGS=... are options
	$(BIN)/hookline bench $(ARGS)

.PHONY: soak
soak: .venv/dev ## Load a server for 30 minutes (MINUTES=...): memory, latency, the doctor at the end
	$(BIN)/hookline bench soak --minutes $(or $(MINUTES),30)

costs: .venv/dev ## Write docs/performance.md: what each verb costs, also with a million items (about 10 minutes)
	$(BIN)/python loadtests/costs.py

.PHONY: rivals
rivals: .venv/dev ## Install other queues beside Hookline, and measure all of them the same way (minutes)
	$(BIN)/python loadtests/rivals/others.py
	$(BIN)/python loadtests/rivals/run.py $(RIVALS)

URL ?= http://127.0.0.1:8080
SECONDS ?= 30
LOCUST := loadtests/rivals/.installed/locust
.PHONY: locust
locust: ## Load the server at URL with Locust, two workers on this machine, for SECONDS
	@test -x $(LOCUST)/bin/locust || { $(PYTHON) -m venv $(LOCUST) && $(LOCUST)/bin/pip install --quiet locust; }
	$(LOCUST)/bin/locust -f loadtests/locustfile.py --host $(URL) --headless --users 20 --spawn-rate 20 \
		--run-time $(SECONDS)s --processes 2

.PHONY: workers
workers: .venv/dev ## Kill worker processes at random for a minute
	HOOKLINE_TEST_KILL_SECONDS=60 $(BIN)/pytest -q tests/sdk/test_workers_killed.py

clean: ## Remove .venv and caches; data stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Hookline needs Python 3.11 or newer: name one with 'make PYTHON=python3.12 ...'"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "Python's venv module is missing: on Debian 'apt-get install python3-venv'"; exit 1; }
	@echo "Installing Hookline into .venv (once)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/dev: .venv/ready
	@echo "Installing the tools of development into .venv (once)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
