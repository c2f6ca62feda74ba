# Every command a person needs. `make` alone lists them.
# Recipes use relative paths and `python -m` only, so that a checkout works from any path, spaces included.

PYTHON := .venv/bin/python
LOCK := requirements-dev.lock
INSTALLED := .venv/installed.lock
RUNS ?= 20000
# `make test ARGS="-k threading -x"` hands further arguments to pytest, `ARGS="-n 0 -s"` shows what tests print.
ARGS ?=
PYTEST := $(PYTHON) -m pytest -n auto
MAKEFLAGS += --no-print-directory
# Hundreds of processes are started here: each would compile all of it anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-unit test-integration scenarios test-browser chaos check check-config format contracts dashboards bench fuzz \
	simulate train migrate replay lock clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

setup: ## Make .venv and install what the lock file names (a no-op when that is done)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && cmp -s $(LOCK) $(INSTALLED) \
		|| sh deploy/setup.sh $(LOCK) $(INSTALLED)

demo: setup ## Run all of it here, without Docker: ONCE=1 ends by itself, MESSAGES=file.jsonl, BROKER=kafka for Apache Kafka
	@ONCE="$(ONCE)" MESSAGES="$(MESSAGES)" BROKER="$(BROKER)" $(PYTHON) -m deploy.demo

test: setup ## All tests, one worker per core
	@$(PYTEST) $(ARGS)

test-unit: setup ## Tests that need nothing but Python
	@$(PYTEST) tests/unit tests/property tests/contract $(ARGS)

test-integration: setup ## Services on a broker and PostgreSQL; the first lines say on which
	@$(PYTEST) tests/integration $(ARGS)

scenarios: setup ## Every brand's stories, from its channels to its answers: a table, and what went wrong
	@$(PYTHON) -m tests.scenarios

test-browser: setup ## The desk's pages in Chromium
	@$(PYTEST) tests/browser $(ARGS)

chaos: setup ## Services and brokers killed in mid-work: nothing lost, nothing doubled
	@$(PYTEST) tests/chaos $(ARGS)

check: setup ## What a change must pass besides tests: style, types, imports, contracts, migrations
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@$(PYTHON) -c 'import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())'
	@$(PYTHON) -m tests.contract check
	@$(PYTHON) -m deploy.grafana check
	@$(PYTHON) -m deploy.k8s check
	@$(PYTHON) -m deploy.migrations check

check-config: setup ## Check promises, calendars and brands in deploy/config (or SLA_TIMER_POLICIES_FILE, SLA_TIMER_CALENDARS_FILE, BRANDS_DIRECTORY)
	@$(PYTHON) -m services.sla_timer check-config

format: setup ## Write the code in the project's style
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

dashboards: setup ## Write dashboards, and what Kubernetes takes of them and of the alerts, anew after a change of them or of a runbook
	@$(PYTHON) -m deploy.grafana write
	@$(PYTHON) -m deploy.k8s write

contracts: setup ## Write schemas, golden examples and AsyncAPI documents anew after a wanted change
	@$(PYTHON) -m tests.contract write

bench: setup ## Measure, each figure beside its baseline; ONLY=name measures one
	@ONLY="$(ONLY)" $(PYTHON) -m benchmarks

fuzz: setup ## Hostile mails and XML into their parsers, with coverage as the guide; RUNS=20000 of each (Linux)
	@$(PYTHON) -m tests.fuzz.mail -atheris_runs=$(RUNS)
	@$(PYTHON) -m tests.fuzz.wechat -atheris_runs=$(RUNS)

simulate: setup ## Weeks of made-up traffic in virtual time, every invariant checked: a table, and simulation.png
	@$(PYTHON) -m services.sla_timer simulate --png simulation.png $(ARGS)

train: setup ## Build the shipped model of the classifier anew, from its corpus and rules
	@$(PYTHON) -m services.classifier rebuild $(ARGS)

migrate: setup ## Bring the schemas of DATABASE_URL to their heads and make missing topics on KAFKA_BOOTSTRAP_SERVERS
	@$(PYTHON) -m deploy.migrations upgrade
	@$(PYTHON) -m deploy.ops topics create --missing-only --yes

replay: setup ## Replay dead letters; ARGS="--service classifier --since 2h --dry-run", see docs/operations.md
	@$(PYTHON) -m deploy.ops dead-letters replay $(ARGS)

lock: setup ## Pin dependencies after a change of pyproject.toml; UPGRADE=1 also takes newer versions
	@sh deploy/lock.sh $(if $(UPGRADE),--upgrade)

clean: ## Remove what runs left behind (.run, caches, simulation.png); .venv stays
	@test ! -x $(PYTHON) || $(PYTHON) -c 'from deploy.processes import *; end_leftovers(RUN_DIRECTORY)'
	@rm -rf simulation.png .run .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -not -path './.venv/*' -type d -prune -exec rm -rf {} +
