# `cmake --install`: the library, its public headers, a CMake package and a pkg-config file, all free to move.
include(CMakePackageConfigHelpers)
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/derain)

set_target_properties(derain PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
if(OpenVINO_FOUND) # the line above leaves out what lies inside the project, as its virtual environment does
  set_target_properties(derain PROPERTIES INSTALL_RPATH $<TARGET_FILE_DIR:openvino::runtime>)
endif()
install(TARGETS derain EXPORT derainTargets)
install(FILES
  include/derain/bundle.hpp
  include/derain/derain.h
  include/derain/engine.hpp
  include/derain/error.hpp
  include/derain/frame.hpp
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/derain)
install(FILES include/derain/stream/shared_frames.hpp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/derain/stream)
target_compile_features(derain INTERFACE cxx_std_20)
install(EXPORT derainTargets NAMESPACE derain:: DESTINATION ${package})

configure_package_config_file(cmake/derainConfig.cmake.in derainConfig.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(derainConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/derainConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/derainConfigVersion.cmake
  DESTINATION ${package})

# Relative to itself, so that the prefix may be chosen when it is installed; CMAKE_INSTALL_LIBDIR may be absolute.
set(pc ${CMAKE_CURRENT_BINARY_DIR}/derain.pc)
file(RELATIVE_PATH up ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
file(RELATIVE_PATH pc_libdir ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_LIBDIR})
file(RELATIVE_PATH pc_includedir ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
file(RELATIVE_PATH bin_to_lib ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR})
set(pc_prefix "\${pcfiledir}/${up}")
configure_file(cmake/derain.pc.in ${pc} @ONLY)
install(FILES ${pc} DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
