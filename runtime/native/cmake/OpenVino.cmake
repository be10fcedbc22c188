# OpenVINO, the CPU's engine: from OpenVINO_DIR or CMAKE_PREFIX_PATH, else from the Python package `openvino`, which
# brings headers and libraries, in the project's virtual environment or in whatever Python is first on the path.
option(DERAIN_OPENVINO "Use OpenVINO where it is found" ON)
if(NOT DERAIN_OPENVINO)
  return()
endif()
find_package(OpenVINO QUIET COMPONENTS Runtime)
if(NOT OpenVINO_FOUND AND NOT CMAKE_CROSSCOMPILING)
  foreach(python IN ITEMS ${PROJECT_SOURCE_DIR}/.venv/bin/python python3)
    execute_process(
      COMMAND ${python} -c "import importlib.util as u; print(u.find_spec('openvino').submodule_search_locations[0])"
      OUTPUT_VARIABLE package OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE status)
    if(status EQUAL 0)
      find_package(OpenVINO QUIET COMPONENTS Runtime PATHS ${package}/cmake NO_DEFAULT_PATH)
      break()
    endif()
  endforeach()
endif()
if(OpenVINO_FOUND)
  message(STATUS "OpenVINO ${OpenVINO_VERSION}: ${OpenVINO_DIR}")
else()
  message(STATUS "No OpenVINO: pip install openvino, or set OpenVINO_DIR")
endif()
