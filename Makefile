# Tests start many interpreters; without bytecode each compiles our files again.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := $(foreach name,config models data infer train,-e packages/mm_$(name))

.PHONY: help demo test test-long test-npu goldens setup format lint types clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup  ## Train both tiny experts on rendered clips, then generate videos from prompts
	$(BIN)/python experiments/tiny.py

test: setup  ## Run all tests that fit the everyday budget
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal \
		-m "not slow and not demo and not browser and not npu and not gpu"

test-long: setup test-npu  ## Run the tests that take longer: the demo, many-process, browser, Slurm and NPU tests
	$(BIN)/python -m pytest -m "slow or demo or browser"

test-npu: setup  ## Run the project on torch_npu over a stub of Ascend's libraries, see tests/npu_standin
	$(BIN)/python tests/npu_standin/run.py

goldens: setup  ## Rewrite what tests compare with: golden.txt, births.txt, pages; see CONTRIBUTING.md
	$(BIN)/python -m pytest --update

format: setup  ## Mend what ruff can mend, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: setup  ## Check style, formatting and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup  ## Check types
	$(BIN)/pyright

setup: $(STAMP)  ## Make .venv and install the five packages, editable

$(STAMP): constraints.txt pyproject.toml $(wildcard packages/*/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PACKAGES) -e ".[dev]"
	touch $(STAMP)

clean:  ## Remove the environment; runs and data stay
	rm -rf $(VENV)
