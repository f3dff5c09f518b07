# make run: the main job.  make test: one test of everything.  make test-all: the other tests that CI runs.
# make test-long: the drills and grids that CI has no time for, on optimised code.
PYTHON ?= python3
VENV ?= .venv
# Further options of jax-attention train, such as RUN='--steps 500'.
RUN ?=
# Another package index for PyTorch, such as that of its CPU builds: make test TORCH_INDEX=URL.
TORCH_INDEX ?=
BIN := $(VENV)/bin

.PHONY: run test test-all test-long durations format benchmarks experiments docs generated clean

$(VENV)/.core: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.12"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.run: $(VENV)/.core
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,viz]'
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt \
		$(if $(TORCH_INDEX),--index-url '$(TORCH_INDEX)') torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,docs]'
	touch $@

run: $(VENV)/.run
	$(BIN)/jax-attention train $(RUN)

test: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python --level error
	$(BIN)/python -m pytest -m "not slow and not long and not gpu"

test-all: $(VENV)/.test
	$(BIN)/python -m pytest -m "slow and not long and not gpu"

test-long: $(VENV)/.test
	XLA_FLAGS= $(BIN)/python -m pytest -m "long and not gpu"

# Times and memory of the tests, for benchmarks/results/suite.json and the tables made from it.
durations: $(VENV)/.test
	$(BIN)/python -m benchmarks.suite test test-all

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

# All of them, small, into .experiments/; without --small and --out they write what is committed.
SMALL := .experiments
experiments: $(VENV)/.test
	$(BIN)/python -m experiments.soft_lookup --out $(SMALL)/soft_lookup
	$(BIN)/python -m experiments.eight_steps --out $(SMALL)/eight_steps
	$(BIN)/python -m experiments.batched_product --out $(SMALL)/batched_product
	$(BIN)/python -m experiments.self_attention_zh --small --out $(SMALL)/self_attention_zh
	$(BIN)/python -m experiments.cat_sat --small --out $(SMALL)/cat_sat
	$(BIN)/python -m experiments.digits --small --out $(SMALL)/digits
	$(BIN)/python -m experiments.inside_a_transformer --small --out $(SMALL)/inside_a_transformer
	$(BIN)/python -m experiments.question_answering --small --out $(SMALL)/question_answering
	$(BIN)/python -m experiments.summarisation --small --out $(SMALL)/summarisation
	$(BIN)/python -m experiments.generation --small --out $(SMALL)/generation
	$(BIN)/python -m experiments.swap_the_rule --small --out $(SMALL)/swap_the_rule
	$(BIN)/python -m experiments.length_extrapolation --small --out $(SMALL)/length_extrapolation
	$(BIN)/python -m experiments.translation --small --out $(SMALL)/translation
	$(BIN)/python -m experiments.rules_side_by_side --small --out $(SMALL)/rules_side_by_side
	$(BIN)/python -m experiments.long_range --small --out $(SMALL)/long_range
	$(BIN)/python -m experiments.shakespeare_char --text README.md --small --out $(SMALL)/shakespeare_char

# The site, into site/. mkdocs' advertisement is switched off, not a warning.
docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Everything in docs/ that is made from the code: the list of files and the pictures. Tests compare them.
generated: $(VENV)/.test
	$(BIN)/python -m docs._draw.tree
	$(BIN)/python -m docs._draw.pictures

clean:
	rm -rf $(VENV) $(SMALL) site .pytest_cache .ruff_cache .jax_cache .hypothesis
