# Cross-compiles for a 64-bit Arm board on Debian's or Ubuntu's cross compiler (g++-aarch64-linux-gnu). The board's root
# file system, with its TensorRT, CUDA, OpenSSL and nlohmann-json packages, is found in DERAIN_SYSROOT: a copy, or a
# mount of the board itself.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)

set(DERAIN_SYSROOT "" CACHE PATH "The board's root file system")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES DERAIN_SYSROOT)
if(DERAIN_SYSROOT)
  set(CMAKE_SYSROOT ${DERAIN_SYSROOT})
endif()
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
