# `make help` lists what can be done. Everything is installed into .venv and .venv-triton; nothing is written elsewhere but var/.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

include infra/local/setup.mk

.PHONY: help setup demo test test-quick lint format contracts bench up down status clean browser peers lock

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: .venv/.done .venv-triton/.done ## install everything that running needs

.venv/.done: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: setup ## one glance all the way, on real components, as a table
	$(BIN)/augenblick demo

up: setup ## start the embedded stack and the platform in the background
	$(BIN)/augenblick up

down: ## end what `make up` started
	$(BIN)/augenblick down

status: ## show what runs
	$(BIN)/augenblick status

test: setup browser peers ## all tests, on real Kafka, PostgreSQL, Triton, Zipkin, providers' peers and Chromium
	$(BIN)/pytest

test-quick: setup ## the tests that need no server
	$(BIN)/pytest tests/unit

lint: .venv/.done ## style, types, import rules, generated contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m infra.contracts check

format: .venv/.done ## put the code into the agreed form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

contracts: .venv/.done ## write the generated contracts in docs/
	$(BIN)/python -m infra.contracts write

bench: setup ## the benchmarks, each beside its peer
	$(BIN)/python -m benchmarks.glance
	$(BIN)/python -m benchmarks.consume
	$(BIN)/python -m benchmarks.payments overhead
	$(BIN)/python -m benchmarks.payments rate
	$(BIN)/python -m benchmarks.payments isolation
	$(BIN)/python -m benchmarks.codes accuracy
	$(BIN)/python -m benchmarks.codes latency
	$(BIN)/python -m benchmarks.triton
	$(BIN)/python -m benchmarks.price_tags
	$(BIN)/python -m benchmarks.recognition latency
	$(BIN)/python -m benchmarks.recognition overload

browser: ## Chromium for the console's tests
	@command -v chromium >/dev/null || [ -n "$${CHROMIUM:-}" ] || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium >/dev/null; \
	  else echo "Chromium is needed for the console's tests: install it, or set CHROMIUM to its path." >&2; exit 1; fi; }

peers: .peers/.done ## other people's programs for the tests: alipay-sdk, stripe-stateful-mock (Node), stripe-mock, helm (Go)

STRIPE_MOCK := github.com/stripe/stripe-mock@v0.203.0
HELM := helm.sh/helm/v3/cmd/helm@v3.15.4

.peers/.done: tests/peers/package-lock.json | browser
	@for tool in npm go; do command -v $$tool >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends nodejs npm golang >/dev/null; \
	  else echo "Node.js with npm and Go are needed for the providers' peers: install them." >&2; exit 1; fi; }; done
	cd tests/peers && npm ci --no-progress
	GOBIN=$(CURDIR)/.peers/bin go install $(STRIPE_MOCK)
	GOBIN=$(CURDIR)/.peers/bin go install $(HELM)
	touch $@

LOCKED := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet

lock: ## renew the lock files (needs uv)
	uv pip compile pyproject.toml --extra dev $(LOCKED) --output-file requirements.lock
	uv pip compile infra/triton/requirements.in $(LOCKED) --output-file infra/triton/requirements.lock

clean: down ## remove everything that was installed or written
	rm -rf .venv .venv-triton .peers tests/peers/node_modules var .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
