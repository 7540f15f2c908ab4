# Every target works on a fresh machine; the virtual environment is made once and kept.
PYTHON ?= python3
TORCH ?= torch==2.13.0
# The register and spill budgets of the tests hold for the compiler of this release.
TRITON ?= triton==3.7.0
VENV := .venv
BIN := $(VENV)/bin
CXX_FILES := $(shell git ls-files '*.h' '*.cpp' '*.cu' 2>/dev/null)

.PHONY: setup test test-deep lint demo bench gpu-source gpu-test gpu-bench clean

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
	GENKERN_BUILD_SMALL=1 $(BIN)/pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@

# At most 8 minutes on two cores; GENKERN_TEST_BUDGET=480 turns more into a failure.
test: setup
	$(BIN)/python -m pytest -n 2

# More examples, all chips and configurations, mutants: at most an hour.
test-deep: setup
	$(BIN)/python -m pytest -n 2 -m "not cuda" --hypothesis-profile=deep

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
GPU_PYTHON ?= python3
OUT ?= build/gpu
GPU_SOURCE := build/gpu-source
GPU_RUN = PYTHONPATH=$(CURDIR)/$(GPU_SOURCE):$(CURDIR) PYTHONSAFEPATH=1 TRITON_INTERPRET=0 \
  PYTHONDONTWRITEBYTECODE=1 timeout 480 $(GPU_PYTHON)

gpu-source:
	rm -rf $(GPU_SOURCE)
	mkdir -p $(GPU_SOURCE)/genkern $(OUT)
	ln -s $(CURDIR)/genkern/* $(CURDIR)/triton_kernels $(GPU_SOURCE)/genkern

gpu-test: gpu-source
	$(GPU_RUN) -m pytest -p no:cacheprovider -ra -m cuda tests/gpu/test_gpu.py \
	  --junitxml $(OUT)/gpu-test.xml; status=$$?; \
	$(GPU_RUN) tests/gpu/report.py $(OUT)/gpu-test.xml $(OUT)/gpu-test.json; exit $$status

gpu-bench: gpu-source
	$(GPU_RUN) -m benchmarks run --device cuda --out $(OUT)

clean:
	rm -rf $(VENV) build
