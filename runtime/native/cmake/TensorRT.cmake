# TensorRT 10, 11 or TensorRT-RTX: NvInfer.h and its library under TensorRT_ROOT (or apart: TensorRT_INCLUDE_DIR and
# TensorRT_LIBRARY), and the CUDA toolkit. Which of the two APIs it is, the library's name says.
set(TensorRT_ROOT "" CACHE PATH "Where TensorRT's include and lib folders are")
find_path(TensorRT_INCLUDE_DIR NvInfer.h HINTS ${TensorRT_ROOT} PATH_SUFFIXES include)
find_library(TensorRT_LIBRARY NAMES nvinfer tensorrt_rtx libtensorrt_rtx.so.1 NAMES_PER_DIR # the root before the system
  HINTS ${TensorRT_ROOT} PATH_SUFFIXES lib lib64)
find_package(CUDAToolkit 12 QUIET)
if(NOT TensorRT_INCLUDE_DIR OR NOT TensorRT_LIBRARY)
  message(STATUS "No TensorRT: set TensorRT_ROOT")
elseif(NOT CUDAToolkit_FOUND)
  message(STATUS "TensorRT at ${TensorRT_LIBRARY}, but no CUDA toolkit 12 or later: set CUDAToolkit_ROOT")
else()
  message(STATUS "TensorRT: ${TensorRT_LIBRARY}, headers in ${TensorRT_INCLUDE_DIR}, CUDA ${CUDAToolkit_VERSION}")
  get_filename_component(tensorrt_file ${TensorRT_LIBRARY} NAME) # a folder on the way may be called after the other one
  add_library(TensorRT::TensorRT UNKNOWN IMPORTED)
  set_target_properties(TensorRT::TensorRT PROPERTIES
    IMPORTED_LOCATION ${TensorRT_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${TensorRT_INCLUDE_DIR}
    INTERFACE_COMPILE_DEFINITIONS
      $<IF:$<BOOL:$<FILTER:${tensorrt_file},INCLUDE,tensorrt_rtx>>,DERAIN_TENSORRT_RTX=1,DERAIN_TENSORRT_RTX=0>)
endif()
