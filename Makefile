# specbench: the first target that you type installs what it needs into .venv.

PYTHON ?= $(or $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; \
  done),python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ZOO_OUT ?= build/zoo

.DEFAULT_GOAL := help
.PHONY: help install run test audit lint format bench golden train clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Create .venv and install specbench with its tools (about 6 GB)

run: install ## Measure the embedded text pair and print the comparison table
	$(BIN)/specbench run -m method=token_sd,pld

test: install lint ## Lint, check the types and run the tests
	$(BIN)/pytest -n auto --dist worksteal
	@if [ "$${CI:-}" = "true" ]; then $(BIN)/pytest -n auto --dist worksteal -m slow && \
	  SPECBENCH_FUZZ_EXAMPLES=150 $(BIN)/pytest -n auto --dist worksteal tests/fuzz && \
	  $(BIN)/specbench audit --all --quick; fi

audit: install ## Audit every method in the short form
	$(BIN)/specbench audit --all --quick

lint: install ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## Mend style where that can be done by machine
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## Race specbench against transformers' own generation
	$(BIN)/python -m benchmarks.text_speed

golden: install ## Write the golden files, docs/methods.md and docs/models.md anew
	SPECBENCH_WRITE_GOLDEN=1 $(BIN)/pytest tests/unit/report tests/contract/test_docs.py tests/unit/models/test_models_page.py

train: install ## Train the embedded models again: about three hours (into ZOO_OUT=build/zoo)
	$(BIN)/python -m specbench.training.text.recipe --out $(ZOO_OUT) --seed 0
	$(BIN)/python -m specbench.training.pictures.recipe --out $(ZOO_OUT) --seed 0

clean: ## Remove caches and build output; keep .venv and results
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
	find specbench tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "specbench needs Python 3.11 or later, and '$(PYTHON)' is not: $$($(PYTHON) --version 2>&1 | head -n 1)."; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot create a virtual environment: its venv or ensurepip is not installed."; \
	  echo "On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev]'
	@touch $@
