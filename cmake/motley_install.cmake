# `cmake --install` puts the program, the libraries, the headers and a package for find_package(motley) in place.
include(CMakePackageConfigHelpers)
set(_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/motley)

get_property(_libraries GLOBAL PROPERTY MOTLEY_LIBRARIES)
foreach(target ${_libraries} motley)
  if(TARGET ${target})
    get_target_property(_type ${target} TYPE)
    if(NOT _type STREQUAL "INTERFACE_LIBRARY")
      set_target_properties(${target} PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};${TORCH_ROOT}/lib")
    endif()
  endif()
endforeach()
install(TARGETS ${_libraries} EXPORT motley
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  OBJECTS DESTINATION ${CMAKE_INSTALL_LIBDIR}/motley)
if(TARGET motley)
  install(TARGETS motley RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/motley DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.h" PATTERN "*.cuh")
install(EXPORT motley NAMESPACE motley:: FILE motley-targets.cmake DESTINATION ${_package_dir})

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/motley-config.cmake.in
  ${PROJECT_BINARY_DIR}/motley-config.cmake INSTALL_DESTINATION ${_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/motley-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/motley-config.cmake ${PROJECT_BINARY_DIR}/motley-config-version.cmake
  ${CMAKE_CURRENT_LIST_DIR}/motley_torch.cmake ${CMAKE_CURRENT_LIST_DIR}/motley_cuda.cmake
  DESTINATION ${_package_dir})
