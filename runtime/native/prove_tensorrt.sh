#!/usr/bin/env bash
# Builds libderain with its TensorRT backend outside the checkout and runs tests/native/test_tensorrt.py on it:
#
#     runtime/native/prove_tensorrt.sh HEADERS LIBRARIES [BUILD]
#
# HEADERS holds NvInfer.h (the folder `include` of the repository NVIDIA/TensorRT, release 11.1), LIBRARIES the
# library (that of the Python package tensorrt-rtx: .venv/lib/python3.*/site-packages/tensorrt_rtx_libs). Without a GPU
# it proves all up to the GPU: the backend compiles, links, starts the runtime, and refuses in one line what it cannot
# run; with one, that its pixels are those of Python's engine. Headers of TensorRT 11 fit TensorRT-RTX 1.5 and 1.6, whose
# classes they share; those of 1.4 are other classes. PYTHON names an interpreter that has derain and pytest, if
# .venv/bin/python does not.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: $0 HEADERS LIBRARIES [BUILD]" >&2
  exit 2
fi
headers=$(realpath "$1") libraries=$(realpath "$2") build=$(realpath -m "${3:-$(mktemp -d)}")
cd "$(dirname "$0")/../.."
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DDERAIN_TESTS=OFF \
  -DTensorRT_INCLUDE_DIR="$headers" -DTensorRT_ROOT="$libraries"
cmake --build "$build" --target derain
DERAIN_NATIVE=$build/runtime/native/libderain.so "${PYTHON:-.venv/bin/python}" -m pytest -v -rs tests/native/test_tensorrt.py
