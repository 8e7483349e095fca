# Every target works from a fresh clone; `make help` lists them. tools/venv.sh builds
# .venv from the lock if it is missing or out of date, and reuses it otherwise.

# Arguments for the command of a target: make reproduce ARGS="--only learn/01"
ARGS :=
# The Python that builds .venv; if empty, the first suitable one on PATH.
PYTHON ?=

BIN := .venv/bin
# Files of tests on two processes, in the order of tests/conftest.py.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help venv reproduce test test-fast test-browser book lab format types hooks lock clean distclean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo 'ARGS="..." adds arguments: make reproduce ARGS="--only learn/01", make test ARGS="-k name".'
	@echo 'PYTHON=... names the Python that builds .venv: make test PYTHON=python3.12.'

venv:
	@sh tools/venv.sh '$(PYTHON)'

reproduce: venv  ## execute every notebook and draw every figure
	@$(BIN)/lrscan run $(ARGS)

test: venv  ## run the test suite
	@$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-fast: venv  ## run the quick tests, and list what is left out
	@$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not browser" $(ARGS)

test-browser: book  ## test the notebooks and the book in Chromium
	@sh tools/chromium.sh $(BIN)/python
	@$(BIN)/python -m pytest -m browser $(ARGS)

book: venv  ## build the book, which can be read without a network
	@$(BIN)/lrscan run
	@$(BIN)/python docs/book.py

lab: venv  ## open the notebooks in JupyterLab, for this machine only
	@$(BIN)/jupyter lab --ip=127.0.0.1 --LabApp.default_url=/lab/tree/notebooks $(ARGS)

format: venv  ## format sources and notebooks
	@$(BIN)/ruff check -q --fix .
	@$(BIN)/ruff format -q .
	@$(BIN)/python tools/canonical.py --fix

types: venv  ## check the types
	@$(BIN)/python -m mypy

hooks: venv  ## format and check before every commit
	@$(BIN)/pre-commit install

# uv keeps pins that are still valid; ARGS=--upgrade takes the newest version of everything.
lock:  ## update the pins in constraints.txt from pyproject.toml
	@'$(or $(PYTHON),python3)' -m venv build/uv
	@build/uv/bin/python -m pip install -q --disable-pip-version-check --upgrade uv
	@build/uv/bin/uv pip compile -q --universal --python-version 3.11 \
	  --extra cu13 --extra notebooks --extra test --extra book --extra browser --no-annotate \
	  --custom-compile-command "make lock" -o constraints.txt $(ARGS) pyproject.toml

clean:  ## remove build/ and the caches
	@rm -rf build .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find lrscan notebooks tests -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## remove .venv, too
	@rm -rf .venv
