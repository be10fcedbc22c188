# Cross-compiles for a 64-bit Arm board on Debian's or Ubuntu's cross compiler (g++-aarch64-linux-gnu). The board's root
# file system, with its TensorRT, CUDA, OpenSSL and nlohmann-json packages, is found in DERAIN_SYSROOT: a copy, or a
# mount of the board itself. The tests run on QEMU (qemu-user-static).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc CACHE STRING "The board's C compiler")
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++ CACHE STRING "The board's C++ compiler")
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)

set(DERAIN_SYSROOT "" CACHE PATH "The board's root file system")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES DERAIN_SYSROOT)
if(NOT DERAIN_SYSROOT OR NOT IS_DIRECTORY ${DERAIN_SYSROOT}/usr)
  message(FATAL_ERROR
    "DERAIN_SYSROOT is '${DERAIN_SYSROOT}', expected the board's root file system: set -DDERAIN_SYSROOT=FOLDER")
endif()
get_filename_component(CMAKE_SYSROOT "${DERAIN_SYSROOT}" REALPATH)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

# What the board's libraries need in turn is for the board's loader to find: their links are often absolute
# (/etc/alternatives), and lead out of this root file system when they are followed on the desk.
set(CMAKE_EXE_LINKER_FLAGS_INIT -Wl,--allow-shlib-undefined)

# pkg-config is the desk's own program; the packages it tells of must be the board's.
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${CMAKE_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR}
  ${CMAKE_SYSROOT}/usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/pkgconfig:${CMAKE_SYSROOT}/usr/share/pkgconfig)

# Of QEMU's processors the nearest to Orin's. Its default, `max`, emulates wider vectors too, 4 times slower.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static -cpu cortex-a76 -L ${CMAKE_SYSROOT})
