# Everything a developer runs. `make` alone lists the targets.
#
#   DIR=...     where `make demo` writes (default demo-data)
#   ARGS=...    further arguments of pytest, of the bench, of chaos or of the demo
#   JOBS=...    test processes (default 2)
#   SECONDS=... how long `make chaos` injects faults (default 60); SEED=... of an earlier run, to draw its faults again
#   PYTHON=...  the interpreter for .venv (default: the first of python3.13, 3.12, 3.11, python3 that is 3.11 or later)

BIN := .venv/bin
DIR ?= demo-data
JOBS ?= 2
ARGS ?=
PYTHON ?=
SECONDS := 60
SEED :=
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-registry test-interop chaos check lint types floors schemas-compatible compose bench kafka clean

help: ## list the targets
	@awk -F ':.*## ' '/^[.a-z][a-z\/_.-]*:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.runtime ## a support portal of 300 users through the real path into DIR: no Kafka, no Java
	$(BIN)/session-ledger demo $(DIR) $(ARGS)

test: .venv/.dev ## the tests, with a real Kafka broker (SESSION_LEDGER_TEST_KAFKA=host:port, else one is started)
	@$(BIN)/python tests/broker/broker.py ensure
	$(PYTEST) -n $(JOBS) --dist loadgroup --durations 15 --ignore tests/registry --ignore tests/interop $(ARGS)

test-registry: .venv/.dev ## with a real schema registry and Java's readers (Java 21 or later; REGISTRY_JAVA names one)
	@$(BIN)/python tests/registry/java.py >/dev/null
	@$(BIN)/python tests/broker/broker.py ensure
	$(PYTEST) tests/registry --durations 5 $(ARGS)

test-interop: .venv/.dev ## proofs and checkpoints judged by Go's modules (Go 1.19 or later; INTEROP_GO names one)
	@$(BIN)/python tests/interop/golang.py >/dev/null
	$(PYTEST) tests/interop --durations 5 $(ARGS)

chaos: .venv/.dev ## faults against a ledger on Kafka under load, judged by its history (SECONDS=60, SEED=, ARGS=)
	@$(BIN)/python tests/broker/broker.py ensure
	$(BIN)/python -m tests.chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(ARGS)

check: lint types floors schemas-compatible compose ## lint, format, types, floors, schema compatibility, the Compose file

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev
	$(BIN)/mypy

floors: .venv/.dev
	$(BIN)/lint-imports

schemas-compatible: .venv/.dev
	$(BIN)/python -m session_ledger.schemas.check
	$(BIN)/python -m session_ledger.projections.analytics.documentation

compose: .venv/.dev
	@PATH="$(CURDIR)/$(BIN):$$PATH" .ci/compose-check docker-compose.yml cluster

bench: .venv/.dev ## the figures of the README, each beside its floor from the same run
	$(BIN)/python -m bench $(ARGS)

kafka: .venv/.dev ## a local Kafka broker for development, until Ctrl-C
	@$(BIN)/python tests/broker/broker.py run $(ARGS)

clean: ## remove what make made: .venv, caches, the demo's ledger, the jars of the tests' servers
	rm -rf .venv build dist *.egg-info demo-data bench/out tests/broker/libs tests/registry/libs
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the virtual environment -------------------------------------------------------------------------------------

.venv: .venv/.dev ## the virtual environment with the product and the tools (made by the others when needed)

.venv/.runtime: pyproject.toml
	@$(BIN)/python -c 'import pip' 2>/dev/null || .ci/make-venv .venv $(PYTHON)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install -qq --editable .
	@touch $@

.venv/.dev: .venv/.runtime
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@
