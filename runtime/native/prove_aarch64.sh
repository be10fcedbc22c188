#!/usr/bin/env bash
# Cross-compiles libderain for 64-bit Arm as JETSON.md describes and runs its tests on an emulated processor, among them
# the one that compares the GStreamer element's pixels with those of Python's engine on this machine:
#
#     runtime/native/prove_aarch64.sh FOLDER [CMAKE OPTION...]
#
# FOLDER takes 1.6 GB and is kept for the next run: a root file system of Debian 12's arm64 packages in the board's place,
# OpenVINO for arm64 so that an engine runs, and the build. Besides what `make native` needs:
#
#     apt install g++-aarch64-linux-gnu gstreamer1.0-tools mmdebstrap qemu-user-static
set -euo pipefail
if [ $# -lt 1 ]; then
  echo "usage: $0 FOLDER [CMAKE OPTION...]" >&2
  exit 2
fi
mkdir -p "$1"
folder=$(realpath "$1") root=$folder/rootfs openvino=$folder/openvino build=$folder/build
shift
cd "$(dirname "$0")/../.."

if [ ! -d "$root" ]; then
  rm -rf "$root.new"
  mmdebstrap --variant=extract --architectures=arm64 --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --include=libc6-dev,libcli11-dev,libgmock-dev,libgtest-dev,libopencv-dev,libssl-dev,libstdc++-12-dev \
    --include=nlohmann-json3-dev,libgstreamer1.0-dev,libgstreamer-plugins-base1.0-dev \
    --include=gstreamer1.0-plugins-base,gstreamer1.0-tools bookworm "$root.new"
  # The packages are unpacked and not configured: what update-alternatives would have linked.
  ln -s blas/libblas.so.3 lapack/liblapack.so.3 "$root.new/usr/lib/aarch64-linux-gnu"
  mv "$root.new" "$root"
fi
if [ ! -d "$openvino" ]; then
  version=$(.venv/bin/python -c 'from importlib.metadata import version; print(version("openvino"))')
  .venv/bin/pip install --quiet --no-deps --only-binary :all: --platform manylinux_2_35_aarch64 \
    --target "$openvino" "openvino==$version"
fi

cmake --preset aarch64 -B "$build" -DDERAIN_SYSROOT="$root" -DOpenVINO_DIR="$openvino/openvino/cmake" "$@"
cmake --build "$build"
# Left out: its warm-up, 200 frames of a camera of 1000 a second, is over before an emulator has got going.
ctest --test-dir "$build" --output-on-failure --exclude-regex 'Stream/Allocations.*<00-'

# GStreamer's programs under their own names, each started by the emulator.
mkdir -p "$folder/bin"
for program in gst-launch-1.0 gst-inspect-1.0; do
  printf '#!/bin/sh\nexec qemu-aarch64-static -cpu cortex-a76 -L %q %q "$@"\n' "$root" "$root/usr/bin/$program" \
    >"$folder/bin/$program"
  chmod +x "$folder/bin/$program"
done
export GST_PLUGIN_SYSTEM_PATH=$root/usr/lib/aarch64-linux-gnu/gstreamer-1.0 GST_REGISTRY_FORK=no
PATH=$folder/bin:$PATH DERAIN_GST=$build/runtime/native/gst .venv/bin/pytest -v -rs tests/native/test_gstreamer.py
