# Installs BUILD_DIR into a prefix and builds what users build against it: the consumer through the CMake package, the C
# example through pkg-config; then runs both, by EMULATOR where they are another machine's, and what was installed.
function(run)
  execute_process(COMMAND ${ARGV} COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
endfunction()

set(prefix ${BUILD_DIR}/consumer/prefix)
file(REMOVE_RECURSE ${BUILD_DIR}/consumer)
run(${CMAKE_COMMAND} --install ${BUILD_DIR} --prefix ${prefix})

list(JOIN FLAGS " " cxx_flags)
run(${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR} -B ${BUILD_DIR}/consumer/build -DCMAKE_PREFIX_PATH=${prefix}
  -DCMAKE_CXX_COMPILER=${CXX} "-DCMAKE_CXX_FLAGS=${cxx_flags}")
run(${CMAKE_COMMAND} --build ${BUILD_DIR}/consumer/build)
run(${EMULATOR} ${BUILD_DIR}/consumer/build/consumer)

find_program(pkg_config pkg-config REQUIRED)
# The installed program finds its library from wherever it lies.
if(EXISTS ${prefix}/bin/derain-stream)
  file(RENAME ${prefix} ${prefix}-moved)
  run(${EMULATOR} ${prefix}-moved/bin/derain-stream --help)
  file(RENAME ${prefix}-moved ${prefix})
endif()

set(ENV{PKG_CONFIG_PATH} ${prefix}/${LIBDIR}/pkgconfig)
execute_process(COMMAND ${pkg_config} --cflags --libs derain
  OUTPUT_VARIABLE flags OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
separate_arguments(flags)
run(${CC} ${FLAGS} ${CMAKE_CURRENT_LIST_DIR}/../../examples/derain_file.c -o ${BUILD_DIR}/consumer/derain_file
  ${flags} -Wl,-rpath,${prefix}/${LIBDIR})
execute_process(COMMAND ${EMULATOR} ${BUILD_DIR}/consumer/derain_file nowhere openvino fp32 in out
  RESULT_VARIABLE status ERROR_VARIABLE told)
if(NOT status EQUAL 1 OR NOT told MATCHES "nowhere: no such bundle")
  message(FATAL_ERROR "derain_file on a bundle that is not there: status ${status}, ${told}")
endif()
