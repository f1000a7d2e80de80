# Needs make, and Python 3.11 or newer with pip and venv; everything else goes into .venv.
# On Linux, PyPI's torch brings 2 GB of CUDA libraries; where they are not wanted:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make install

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.installed
LOWEST := $(CURDIR)/.venv-lowest

.DEFAULT_GOAL := help
.PHONY: help install demo pictures lint types test lowest soak faults bench performance clean

help:  ## say what there is to do
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED)  ## make .venv, with zloom and what its development needs

# torch goes first and alone: it is the largest by far, and pip then resolves the rest around it.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("zloom needs Python 3.11 or newer; try make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@echo "installing into $(VENV), which takes a few minutes the first time"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt torch==2.13.0
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

demo: install  ## steer real training runs, in one process and on two ranks, and draw what became of them
	@$(BIN)/python examples/demo.py

pictures: demo  ## make the pictures of README and docs anew
	@mkdir -p docs/images
	cp out/demo/loss.png docs/images/demo-loss.png
	cp out/demo/modes.png docs/images/demo-modes.png
	cp out/demo/terminal.svg docs/images/demo-terminal.svg

lint: install  ## look for mistakes and for unformatted code
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# The examples are scripts that import each other by bare name, so they are looked at by themselves.
types: install  ## check the types
	$(BIN)/mypy
	$(BIN)/mypy tests
	$(BIN)/mypy examples
	$(BIN)/mypy bench

# Half of the time tests wait, for time-outs and for processes to start, so three run at once on two cores.
# Hundreds of processes start: where bytecode may not be written, each compiles zloom and the tests anew.
test: export PYTHONDONTWRITEBYTECODE =
test: lint types  ## lint, check the types and run all tests
	$(BIN)/python -m pytest --numprocesses=3 --dist=worksteal

soak: install  ## try the state machines on many more examples, other ones each time
	$(BIN)/python -m pytest --hypothesis-profile=soak --timeout=0 tests/unit/test_core_machine.py tests/unit/test_pair_machine.py tests/unit/test_ranks_machine.py

# Neither zloom nor torch is installed there, so that nothing but the bounds decides what is.
lowest:  ## try the oldest releases that pyproject.toml allows, on the tests that need no torch
	@$(PYTHON) -m venv --clear $(LOWEST)
	@$(LOWEST)/bin/python -m pip --quiet --disable-pip-version-check install $$($(PYTHON) .ci/lowest.py pins)
	PATH="$(LOWEST)/bin:$$PATH" PYTHONPATH=.:broker python -m pytest $$($(PYTHON) .ci/lowest.py tests)

# Most of it waits, for time-outs and for processes to start, so more of it runs at once than there are cores.
FAULTS := $(BIN)/python -m pytest --faults=long --timeout=1800
faults: install  ## try all faults at length, ten minutes of it or more, and write tables of them to out/
	$(FAULTS) -m "fault and not alone" --faults-table=out/faults.md --numprocesses=4 --dist=worksteal
	$(FAULTS) -m "fault and alone" --faults-table=out/faults-alone.md

bench: install  ## measure what zloom costs beside what one would use instead
	@$(BIN)/python -m bench

# On a machine that does nothing else: it takes up to a quarter of an hour on 2 cores.
performance: install  ## measure everything, and write docs/performance.md anew
	@$(BIN)/python -m bench --output bench/results/latest.json
	@$(BIN)/python -m bench report bench/results/latest.json

clean:  ## remove .venv and everything that was built or cached
	rm -rf $(VENV) $(LOWEST) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
