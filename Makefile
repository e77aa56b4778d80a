# Two commands need nothing but Python 3.11+, git and make: `make demo` and `make test`; `make test-all` runs every test.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OK := import sys; sys.exit(sys.version_info < (3, 11))
# The first interpreter on the PATH that is new enough; `make PYTHON=...` takes another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c '$(OK)' 2>/dev/null && echo $$p && break; done)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# One worker a core, none with threads of its own; whoever is done takes tests over from the others.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: demo test test-slow test-all lint types docs clean

demo: $(STAMP)
	$(BIN)/rtseg demo

# What every change has to pass: all but what builds, exports, trains, or watches a feed for long.
test: $(STAMP)
	$(PYTEST) -m "not slow"

test-slow: $(STAMP)
	$(PYTEST) -m slow

test-all: test test-slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# The documentation, strictly: a broken link, anchor or inclusion fails. Then open out/site/index.html.
docs: $(STAMP)
	$(BIN)/python docs/assemble.py
	$(BIN)/zensical build --clean --strict

clean:
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find rtseg bench tests -name __pycache__ -prune -exec rm -rf {} +
	find rtseg -name '*.so' -delete

# The kernels are compiled with it, where there is a compiler.
$(STAMP): setup.py constraints.txt $(wildcard rtseg/engine/cpu/simd/*)
	@$(or $(PYTHON),false) -c '$(OK)' || { echo "rtseg needs Python 3.11 or newer on the PATH, or: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing into $(VENV): minutes the first time, then never again"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@# opencv-python opens windows, and so needs libGL; a machine without it has no screen either.
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
		echo "no libGL here: taking the OpenCV that opens no windows"; \
		$(BIN)/python -m pip uninstall --quiet --yes opencv-python; \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt opencv-python-headless; }
	@# Meta's own predictor and EdgeTAM's backbone, for tests and bench/peers.py alone. Without torchvision, which these
	@# never touch and which would bring CUDA; so what they do import is named here. Nothing is compiled, and nothing
	@# else waits for it.
	@SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps --no-build-isolation \
		sam2 hydra-core omegaconf antlr4-python3-runtime iopath portalocker timm \
		|| echo "sam2 and timm could not be installed: tests/track/test_meta.py and some of tests/bench will be skipped"
	@# Others' metrics, for tests/evaluate/test_metrics.py alone; without readers of images that it never touches.
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps --no-build-isolation medpy vos-benchmark \
		|| echo "medpy, vos-benchmark could not be installed: some of tests/evaluate/test_metrics.py will be skipped"
	@touch $@
