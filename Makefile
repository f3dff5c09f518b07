# make run: the main job.  make test: everything that must pass.  make test-all: with the heavy sweeps, on optimised code.
PYTHON ?= python3
VENV ?= .venv
# Further options of jax-attention train, such as RUN='--steps 500'.
RUN ?=
BIN := $(VENV)/bin

.PHONY: run test test-all format benchmarks docs clean

$(VENV)/.core: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.12"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.run: $(VENV)/.core
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,viz]'
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,docs]'
	touch $@

run: $(VENV)/.run
	$(BIN)/jax-attention train $(RUN)

test: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-all: $(VENV)/.test
	XLA_FLAGS= $(BIN)/python -m pytest -m "not gpu"

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmarks: $(VENV)/.test
	$(BIN)/python -m benchmarks.rules
	$(BIN)/python -m benchmarks.attention --resume
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.long
	$(BIN)/python -m benchmarks.additive
	$(BIN)/python -m benchmarks.train_step
	$(BIN)/python -m benchmarks.decode
	$(BIN)/python -m benchmarks.tables
	$(BIN)/python -m benchmarks.figures

docs: $(VENV)/.test
	$(BIN)/python -m docs.pictures

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .jax_cache .hypothesis
