# Every command of the project; plain `make` prints them.
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV ?= .venv
PY := $(VENV)/bin/python
PROTOS := $(shell find protos -name '*.proto')
ARGS ?=
export PYTHONDONTWRITEBYTECODE ?=

.PHONY: help
help: ## Print the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- set-up -----------------------------------------------------------------------------------------------------------

$(VENV)/.dev: requirements-dev.lock infra/setup.sh
	@infra/setup.sh requirements-dev.lock $(VENV)
	@touch $@

$(VENV)/.ci: requirements-ci.lock infra/setup.sh
	@infra/setup.sh requirements-ci.lock $(VENV)
	@touch $(VENV)/.dev $@

gen/descriptors.binpb: $(VENV)/.dev infra/protos.py $(PROTOS)
	@$(PY) infra/protos.py

build/breached_passwords.bin: $(VENV)/.dev infra/breached.py
	@$(PY) infra/breached.py $@

.PHONY: setup protos lock
setup: gen/descriptors.binpb build/breached_passwords.bin ## Install what demo and test need, build stubs and lists
protos: $(VENV)/.dev ## Build gen/ from protos/
	@$(PY) infra/protos.py
lock: ## Pin all dependencies anew, with hashes (needs uv)
	@infra/lock.sh

# --- the one-machine stack --------------------------------------------------------------------------------------------

.PHONY: demo up down status logs reset
demo: setup ## Set up, start everything, run a reader's whole journey, stop
	@$(PY) -m infra.local demo $(ARGS)
up: setup ## Start everything with a seeded publication and stay; Ctrl-C drains
	@$(PY) -m infra.local up $(ARGS)
down: setup ## Stop what `make up` started
	@$(PY) -m infra.local down
status: setup ## Show what runs
	@$(PY) -m infra.local status || true
logs: setup ## Show the newest log lines (ARGS=billing for one service)
	@$(PY) -m infra.local logs $(ARGS)
reset: setup ## Stop and forget all local data
	@$(PY) -m infra.local reset

# --- proof ------------------------------------------------------------------------------------------------------------

APART := tests/unit tests/integration tests/security tests/architecture tests/data

.PHONY: test test-parts check lint types contracts proto-check chart-check browser ci bench chaos abuse-report cases
test: setup ## Everything a bare machine can prove: unit, integration, security, architecture, e2e
	@echo "make test: pytest on embedded PostgreSQL and Valkey, then e2e over HTTP with every process up"
	@echo "left out: lint, types, proto rules, chart, browser (make ci); the walk of all kill points (make chaos); make bench"
	@$(PY) -m infra.timed "make test" $(MAKE) --no-print-directory test-parts
test-parts:
	@$(PY) -m pytest -q -n 2 --dist loadfile $(APART) $(ARGS)
	@$(PY) -m pytest -q tests/e2e $(ARGS)
check: $(VENV)/.ci setup lint types contracts ## Before every commit: lint, types, contracts, unit and architecture tests
	@$(PY) -m pytest -q -x tests/unit tests/architecture
lint: $(VENV)/.ci
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
types: $(VENV)/.ci setup
	@$(PY) -m mypy
contracts: $(VENV)/.ci setup
	@$(VENV)/bin/lint-imports
proto-check: $(VENV)/.ci setup
	@infra/proto_check.sh
chart-check: $(VENV)/.ci setup ## Lint, render and validate the chart (builds helm once)
	@infra/chart_check.sh
browser: $(VENV)/.ci setup ## Pages in a real browser (needs Chromium)
	@$(PY) -m pytest -q tests/browser $(ARGS)
ci: ## Everything: make test, lint, types, contracts, proto rules, browser; installs its tools as root
	@infra/ci.sh
bench: setup ## Side-by-side benchmarks (CASE=name for one)
	@$(PY) -m tests.bench $(CASE)
chaos: setup ## Walk every kill point of the journey with kill -9
	@$(PY) -m infra.timed "make chaos" $(PY) -m tests.chaos $(ARGS)
abuse-report: $(VENV)/.ci setup ## Detection of abuse on labelled traffic: a page with plots in build/abuse-report (ARGS=--quick)
	@$(PY) -m infra.timed "make abuse-report" $(PY) -m tests.bench.abuse $(ARGS)
cases: ## Numbers of an acceptance list without a test (LIST=auth, FROM=folder of the lists)
	@python3 infra/cases.py $(LIST) $(FROM)
