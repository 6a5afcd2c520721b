# Two commands do everything: `make demo` and `make test`.
.PHONY: demo test test-fast test-tpu lint format benchmark clean

PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
DEMO = runs/demo

demo: $(VENV)/demo
	$(BIN)/python -m experiments.language_model train --out $(DEMO) --resume
	@echo "More text: $(BIN)/python -m experiments.language_model generate --run $(DEMO) --prompt 'The '"

test: $(VENV)/dev
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

test-fast: $(VENV)/dev
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal -m "not slow"

# compiles for TPUs, with no TPU; the compiler lies apart, for where it is found JAX
# looks for a TPU first, and complains
test-tpu: $(VENV)/dev $(VENV)/tpu-compile
	PYTHONPATH=$(VENV)/tpu-compile $(BIN)/python -m pytest tests/test_tpu.py -k compiles -rs

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# says first how long it takes; on an idle machine only
benchmark: $(VENV)/benchmarks
	$(BIN)/python -m benchmarks run
	$(BIN)/python -m benchmarks report --front README.md

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis

# an environment for each set of extras that was installed into the one .venv;
# made again when what it is made from has changed
$(VENV)/demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[experiments]'
	@touch $@

$(VENV)/dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

$(VENV)/benchmarks: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[benchmarks]'
	@touch $@

# the version that the jax[tpu] of the installed JAX asks for
$(VENV)/tpu-compile: pyproject.toml | $(VENV)/dev
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $@ \
		"$$($(BIN)/python scripts/libtpu_requirement.py)"
	@touch $@

$(BIN)/python:
	@./scripts/make-venv $(PYTHON) $(VENV)
