# `make demo` and `make test` work on a machine that has only Python, pip, git and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
DEMO ?= demo-run

.PHONY: demo test test-all lint clean help

help:
	@echo "make demo      explain a brain segmentation and write a report into $(DEMO)/"
	@echo "make test      the test suite without the slow tests"
	@echo "make test-all  the whole test suite"
	@echo "make lint      ruff, mypy --strict and the import contracts"

demo: $(VENV)/.demo
	$(BIN)/voxplain demo --output $(DEMO)

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow" $(PYTEST)

test-all: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# torch comes first and alone: any other request for it fetches gigabytes of CUDA packages.
$(VENV)/.torch: constraints.txt
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 \
	  || $(PYTHON) -m venv $(VENV) \
	  || { $(PYTHON) -m venv --without-pip $(VENV) \
	       && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	@echo "installing torch into $(VENV) (about a minute the first time) ..."
	@$(PIP) torch==2.13.0
	@touch $@

# One stamp per set of extras, so that a second call starts at once.
$(VENV)/.demo $(VENV)/.test $(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@echo "installing voxplain[$(subst .,,$(@F))] ..."
	@$(PIP) -e ".[$(subst .,,$(@F))]"
	@touch $@

clean:
	rm -rf $(VENV) build dist
