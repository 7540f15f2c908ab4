# Every target works on a fresh machine; the virtual environment is made once and kept.
PYTHON ?= python3
TORCH ?= torch==2.13.0
# The register and spill budgets of the tests hold for the compiler of this release.
TRITON ?= triton==3.7.0
VENV := .venv
BIN := $(VENV)/bin
CXX_FILES := $(shell git ls-files '*.h' '*.cpp' '*.cu' 2>/dev/null)

.PHONY: setup test test-deep lint demo bench gpu clean

setup: $(VENV)/.built

# torch goes first: a dependency that pulls it in would choose another build.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$(TORCH)" "$(TRITON)"
	$(BIN)/pip install --quiet --upgrade setuptools wheel pybind11 ninja
	GENKERN_BUILD=none $(BIN)/pip install --quiet --no-build-isolation \
	  --editable ".[examples,lint,test,triton]"
	touch $@

$(VENV)/.built: $(VENV)/.installed setup.py MANIFEST.in $(wildcard csrc/*.h csrc/*.cpp csrc/*/*)
	GENKERN_BUILD_LEVELS=all $(BIN)/pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@

# At most 8 minutes on two cores; GENKERN_TEST_BUDGET=480 turns more into a failure.
test: setup
	$(BIN)/python -m pytest -n 2

# More examples, all chips and configurations, mutants: at most an hour.
test-deep: setup
	$(BIN)/python -m pytest -n 2 -m "deep or not deep" --hypothesis-profile=deep
	$(BIN)/python -m tests.mutants

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)
	$(BIN)/mypy

demo: setup
	$(BIN)/python -m examples demo

bench: setup
	$(BIN)/python -m benchmarks run

# On a machine with a GPU, from the source tree: nothing is installed or built there. The package's
# folders are linked into one place, because triton_kernels/ is imported as genkern.triton_kernels.
# At most 300 s; `make gpu STAGES=2,3 FAMILIES=a,b` gives all of them to what is named.
GPU_PYTHON ?= python3
OUT ?= build/gpu
STAGES ?=
FAMILIES ?=
GPU_SOURCE := build/gpu-source

gpu:
	@rm -rf $(GPU_SOURCE)
	@mkdir -p $(GPU_SOURCE)/genkern
	@ln -s $(CURDIR)/genkern/* $(CURDIR)/triton_kernels $(GPU_SOURCE)/genkern
	@PYTHONPATH=$(CURDIR)/$(GPU_SOURCE):$(CURDIR) PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 \
	  timeout --kill-after=5 300 $(GPU_PYTHON) -m tests.gpu --out "$(OUT)" --stages "$(STAGES)" \
	  --families "$(FAMILIES)"

clean:
	rm -rf $(VENV) build
