# make demo | test | lint | bench | clean          PYTHON=python3.12 make test
PYTHON ?= python3
VENV ?= .venv
PYTEST_FLAGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PINNED := $(PIP) install --constraint constraints.txt
READY := $(VENV)/.ready

.PHONY: demo test lint bench clean

demo: $(READY)
	$(BIN)/port demo

test: $(READY)
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	set -e; for claim in benchmarks/*.py; do echo "== $$claim"; $(BIN)/python $$claim; done

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

# opencv-python needs libGL, which a machine without a screen may lack; the headless build is the
# same cv2 without windows.
$(READY): setup.cfg constraints.txt
	@echo "Installing into $(VENV) (once; some minutes) ..."
	$(PYTHON) -m venv $(VENV)
	$(PINNED) --editable ".[dev]"
	@$(BIN)/python -c "import cv2" 2>/dev/null || { \
	  echo "opencv-python does not load here (libGL is missing): taking opencv-python-headless"; \
	  $(PIP) uninstall --yes opencv-python && $(PINNED) opencv-python-headless && \
	  $(BIN)/python -c "import cv2"; }
	@touch $@
