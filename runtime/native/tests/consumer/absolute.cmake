# Configures SOURCE_DIR for a library folder outside the prefix: the paths to it must lead there all the same.
set(folder ${BUILD_DIR}/consumer-absolute)
file(REMOVE_RECURSE ${folder})
execute_process(
  COMMAND ${CMAKE_COMMAND} -S ${SOURCE_DIR} -B ${folder} -G ${GENERATOR} -DCMAKE_CXX_COMPILER=${CXX} -DDERAIN_TESTS=OFF
    -DDERAIN_OPENVINO=OFF -DCMAKE_INSTALL_PREFIX=/usr/local -DCMAKE_INSTALL_LIBDIR=/opt/derain/lib
  OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)

function(check file expected)
  file(READ ${folder}/runtime/native/${file} text)
  string(FIND "${text}" "${expected}" at)
  if(at EQUAL -1)
    message(FATAL_ERROR "${file} has no '${expected}':\n${text}")
  endif()
endfunction()

check(derain.pc "prefix=\${pcfiledir}/../../../../usr/local\nlibdir=\${prefix}/../../opt/derain/lib\n")
if(EXISTS ${folder}/runtime/native/stream/cmake_install.cmake)
  file(READ ${folder}/runtime/native/stream/cmake_install.cmake text)
  if(text MATCHES "derain-stream")
    check(stream/cmake_install.cmake "$ORIGIN/../../../opt/derain/lib")
  endif()
endif()
