# Two commands do everything: `make demo` and `make test`.
.PHONY: demo test test-fast lint format benchmark clean

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

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(VENV)/benchmarks
	$(BIN)/python -m benchmarks

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

$(BIN)/python:
	@./scripts/make-venv $(PYTHON) $(VENV)
