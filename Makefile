# Every target works on a fresh machine; the virtual environment is made once and kept.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
CXX_FILES := $(shell git ls-files '*.h' '*.cpp' '*.cu' 2>/dev/null)

.PHONY: setup test lint demo bench clean

setup: $(VENV)/.built

# torch goes first: a dependency that pulls it in would choose another build.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --upgrade setuptools wheel pybind11 ninja
	GENKERN_BUILD=none $(BIN)/pip install --quiet --no-build-isolation \
	  --editable ".[examples,lint,test,triton]"
	touch $@

$(VENV)/.built: $(VENV)/.installed setup.py MANIFEST.in $(wildcard csrc/*.h csrc/*.cpp csrc/*/*)
	$(BIN)/pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)
	$(BIN)/mypy

demo: setup
	$(BIN)/python -m examples demo

bench: setup
	$(BIN)/python -m benchmarks run

clean:
	rm -rf $(VENV) build
