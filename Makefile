# Needs make, git and Python 3.11 or newer; everything else comes with `make setup`.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo up down test test-unit test-integration test-e2e test-containers test-cluster chaos model lint fmt bench crds release images clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv/ with the kubechain command and every service (at once when nothing changed)
	@$(PYTHON) scripts/bootstrap.py $(if $(filter-out file,$(origin PYTHON)),--keep-python)

demo: setup ## Watch an agent use a tool, on a control plane of its own (an API key is used if set, none is needed)
	@$(BIN)/kubechain demo

up: setup ## Start the local control plane and all services in the foreground (Ctrl-C stops them)
	@$(BIN)/kubechain up

down: setup ## Stop them
	@$(BIN)/kubechain down

test: setup ## Run everything that decides a merge: lint, unit tests, the model of crashes, integration and end-to-end tests, a short chaos sweep, containers, a one-node cluster
	@$(BIN)/python scripts/stages.py lint unit model control-plane integration e2e node images chaos containers cluster

test-unit: setup ## Run the tests that need no API server, NATS or MCP server
	@$(BIN)/python scripts/stages.py unit model

test-integration: setup ## Run the tests against a real API server, NATS and MCP servers
	@$(BIN)/python scripts/stages.py control-plane integration

test-e2e: setup ## Run the walk-throughs of the whole product
	@$(BIN)/python scripts/stages.py control-plane e2e

test-containers: setup ## Build the images and run the tests of the containers (starts a container engine if none runs)
	@$(BIN)/python scripts/stages.py control-plane images containers

test-cluster: setup ## Install the product on a real cluster and use it (a one-node cluster of its own; KUBECHAIN_TEST_CLUSTER=kind)
	@$(BIN)/python scripts/stages.py control-plane node images cluster

model: setup ## Look for new crash points in the model of the API server and JetStream (minutes)
	@KUBECHAIN_MODEL_EXAMPLES=$${KUBECHAIN_MODEL_EXAMPLES:-2000} $(BIN)/pytest -q --timeout=0 tests/model/test_crash_points.py

chaos: setup ## Kill 1,000 processes under 3,000 Tasks and write docs/reliability.md (CHAOS="--kills 100 --tasks 300" for less)
	@$(BIN)/python -m tests.chaos $(CHAOS)

lint: setup ## Check format, rules, types, imports and the generated CRDs
	@$(BIN)/python scripts/stages.py lint

fmt: setup ## Format the code and fix what ruff can fix
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: setup ## Measure latency, throughput and cost against the budgets
	@$(BIN)/python -m benchmarks

crds: setup ## Write crds/, the policies, roles and NATS users of deploy/kustomize/, deploy/release/ and the tables of docs/ from their sources
	@$(BIN)/python -m kubechain_common.crdgen crds
	@$(BIN)/python -m kubechain_common.policies deploy/kustomize/policies
	@$(BIN)/python -m kubechain_common.policies.rbac deploy/kustomize/base
	@$(BIN)/python -m kubechain_common.policies.rbac.docs docs/rbac.md
	@$(BIN)/python -m kubechain_llm_gateway.llms.provider_docs docs/providers.md
	@$(BIN)/python -m scripts.settings_page docs/settings.md
	@$(BIN)/python -m scripts.metrics_page docs/observability.md
	@$(BIN)/python -m kubechain_common.messages.nats_config deploy/kustomize/base/nats/users.conf
	@$(BIN)/python -m scripts.release

release: setup ## Write deploy/release/ (VERSION=x for another version, REGISTRY=r before the images' names)
	@$(BIN)/python -m scripts.release $(VERSION) $(if $(REGISTRY),--registry $(REGISTRY))

images: setup ## Build the services' images and NATS's, list their sizes (VERSION=, REGISTRY=, BASE=, SAVE=folder for an archive)
	@$(BIN)/python -m scripts.images $(if $(VERSION),--version $(VERSION)) $(if $(REGISTRY),--registry $(REGISTRY)) \
	  $(if $(BASE),--base $(BASE)) $(if $(SAVE),--save $(SAVE))

clean: ## Remove .venv/, .tools/ and all caches (a running cluster stays: make down)
	@rm -rf .venv .tools .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
