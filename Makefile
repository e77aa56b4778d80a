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

# The package as others install it: a wheel and an sdist in dist/.
dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .

# constraints.txt again, for what pyproject.toml asks for. What is pinned stays; UPGRADE="--upgrade" takes the newest.
constraints: $(STAMP)
	$(BIN)/python -m pip install --quiet uv
	UV_CUSTOM_COMPILE_COMMAND="make constraints" $(BIN)/uv pip compile --quiet --universal --annotation-style line \
		--python $(BIN)/python --all-extras --group pyproject.toml:peers $(UPGRADE) -o constraints.txt pyproject.toml

# Whether the floors in pyproject.toml are true: tests with the oldest versions of all that is small (torch is not).
floors: $(STAMP)
	$(BIN)/python -m pip install --quiet uv
	rm -rf out/floors && $(BIN)/python -m venv out/floors
	$(BIN)/uv pip compile --quiet --no-header --resolution lowest-direct --python $(BIN)/python \
		-o out/floors/oldest.txt pyproject.toml
	out/floors/bin/python -m pip install --quiet --requirement out/floors/oldest.txt
	where='import site; print(site.getsitepackages()[0])'; \
		$(BIN)/python -c "$$where" > "$$(out/floors/bin/python -c "$$where")/zz-all-else.pth"
	OMP_NUM_THREADS=1 out/floors/bin/python -m pytest -n auto -m "not slow" tests/base tests/grab tests/live/control \
		tests/live/test_config.py tests/publish tests/synthetic tests/engine/test_onnx_runtime.py

clean:
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find rtseg bench tests -name __pycache__ -prune -exec rm -rf {} +
	find rtseg -name '*.so' -delete

# The kernels are compiled with it, where there is a compiler.
$(STAMP): pyproject.toml setup.py constraints.txt $(wildcard rtseg/engine/cpu/simd/*)
	@$(or $(PYTHON),false) -c '$(OK)' || { echo "rtseg needs Python 3.11 or newer on the PATH, or: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing into $(VENV): minutes the first time, then never again"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	@# What tests and bench/ compare with, without what it asks for; nothing else waits for it, and nothing is compiled.
	@peers=$$($(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['dependency-groups']['peers'])"); \
	install="$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps --no-build-isolation"; \
	export SAM2_BUILD_CUDA=0; \
	$$install $$peers || for peer in $$peers; do \
		$$install $$peer || echo "$$peer could not be installed: tests that compare with it will be skipped"; done
	@# Its module is called sam2, as Meta's is, so it has a folder of its own.
	@$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/edgetam edgetam-dimos==1.0.1 \
		|| echo "edgetam-dimos could not be installed: tests that compare with it will be skipped"
	@touch $@
