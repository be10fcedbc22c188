# `make demo` and `make test` do their own set-up: a virtual environment in .venv with what pyproject.toml names.
PYTHON ?= python3
VENV := .venv
# A CPU is enough for the demo and the tests; any torch that pyproject.toml allows will do.
TORCH ?= torch==2.13.0
# Processes that share the tests, file by file.
WORKERS ?= 2
READY := $(VENV)/.ready

.PHONY: demo test native sanitize tidy lint bench clean

demo: $(READY)
	$(VENV)/bin/derain demo

test: $(READY)
	$(VENV)/bin/pytest -n $(WORKERS) --dist loadfile

# The C++ runtime; the packages it needs are in the README.
native: $(READY)
	cmake --preset default
	cmake --build --preset default
	ctest --preset default
	$(VENV)/bin/pytest tests/native

# Its unit tests under the address and undefined-behaviour sanitizers, and under the thread sanitizer.
SANITIZERS ?= asan tsan
sanitize: $(READY)
	for preset in $(SANITIZERS); do \
	  cmake --preset $$preset && cmake --build --preset $$preset && ctest --preset $$preset || exit 1; \
	done

# clang-format and clang-tidy over the C++ runtime: what the default build compiles, and two programs built apart.
tidy: $(READY)
	find runtime/native -name '*.[ch]' -o -name '*.[ch]pp' | xargs clang-format --dry-run -Werror
	cmake --preset default
	run-clang-tidy -quiet -p build/native/default
	clang-tidy --quiet -p build/native/default runtime/native/fuzz/fuzz_bundle.cpp runtime/native/tests/consumer/main.cpp

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	rm -rf build/typed build/lib
	$(VENV)/bin/pip install --quiet --no-deps --target build/typed .
	MYPYPATH=build/typed $(VENV)/bin/mypy -p derain

bench: $(READY)
	$(VENV)/bin/python benchmarks/cost.py

clean:
	rm -rf $(VENV) build demo *.egg-info

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet $(TORCH)
	$(VENV)/bin/pip install --quiet --editable '.[cpu,demo,dev,openvino,rtx]' tensorrt-rtx-cu13==1.6.1.120
	touch $@
