# Each target sets up what it needs (scripts/setup.sh) and can be run on a fresh Debian 12 machine.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-gpu check bench kafka lock clean

python := .venv/bin/python
facestream := .venv/bin/facestream

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what facestream needs, and nothing else
	@scripts/setup.sh demo

demo: setup ## Three people in a made clip (out/demo), or SOURCE=<file or URI> (out/demo-source), to events and pictures
	@$(facestream) demo $(if $(SOURCE),--source '$(SOURCE)')

test: ## Run all tests
	@scripts/setup.sh test
	@$(python) scripts/test.py $(PYTEST_ARGS)

test-gpu: ## Run what needs an NVIDIA GPU, on a machine that has one (docs/engines.md)
	@scripts/setup.sh test
	@$(python) -m pytest -m gpu tests

check: ## Formatting, lint, types and the house's import rules
	@scripts/setup.sh check
	@$(python) -m ruff format --check .
	@$(python) -m ruff check .
	@$(python) -m mypy
	@.venv/bin/lint-imports

bench: ## Speed of the whole job, of each engine, of a gallery of a million, and of events to Kafka where one is
	@scripts/setup.sh test
	@$(facestream) bench stream
	@$(facestream) bench engine
	@$(facestream) bench gallery
	@scripts/bench_events.sh

kafka: ## Fetch Apache Kafka for tests and benchmarks, with Maven, into the user's cache
	@scripts/kafka/kafka fetch

lock: ## Pin the newest versions that pyproject.toml admits
	@scripts/lock.sh

clean: ## Remove the virtual environment and everything made
	rm -rf .venv out .pytest_cache .mypy_cache .ruff_cache .hypothesis
