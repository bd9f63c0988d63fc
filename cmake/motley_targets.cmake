# Functions that keep every folder's CMakeLists.txt to a list of its files.
include(GNUInstallDirs)

# Headers of torch take five seconds to read, a precompiled one two. Off, each file must include what it uses:
# the sanitizer presets build that way.
option(MOTLEY_PCH "Precompile torch's headers" ON)

find_program(MOTLEY_CCACHE ccache)
if(MOTLEY_CCACHE)
  foreach(language CXX CUDA)
    if(NOT CMAKE_${language}_COMPILER_LAUNCHER)
      # Without this ccache passes over every file with a precompiled header.
      set(CMAKE_${language}_COMPILER_LAUNCHER
        ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${MOTLEY_CCACHE})
    endif()
  endforeach()
endif()

# mold links in a tenth of the time. Version 1 (Debian 12) is left alone: where a thread-local variable comes to
# lie just before a page, it writes programs that do not start ("cannot apply additional memory protection").
find_program(MOTLEY_MOLD mold)
if(MOTLEY_MOLD)
  execute_process(COMMAND ${MOTLEY_MOLD} --version OUTPUT_VARIABLE _mold ERROR_QUIET)
  if(_mold MATCHES "mold ([0-9.]+)" AND CMAKE_MATCH_1 VERSION_GREATER_EQUAL 2)
    include(CheckCXXSourceCompiles)
    set(CMAKE_REQUIRED_LINK_OPTIONS -fuse-ld=mold)  # GCC before 12.1 does not know it
    check_cxx_source_compiles("int main() { return 0; }" MOTLEY_LINKS_WITH_MOLD)
    unset(CMAKE_REQUIRED_LINK_OPTIONS)
    if(MOTLEY_LINKS_WITH_MOLD)
      add_link_options($<$<NOT:$<LINK_LANGUAGE:CUDA>>:-fuse-ld=mold>)
    endif()
  endif()
endif()

add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wall> $<$<COMPILE_LANGUAGE:CXX>:-Wextra>
                    $<$<COMPILE_LANGUAGE:CXX>:-Wno-unused-parameter>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)  # GCC 12 takes `"a" + string` for an overlap
endif()

if(MOTLEY_SANITIZE)
  set(_sanitize -fsanitize=${MOTLEY_SANITIZE} -fno-omit-frame-pointer -g1)
  if(MOTLEY_SANITIZE MATCHES "undefined")
    list(APPEND _sanitize -fno-sanitize-recover=undefined)
  endif()
  foreach(option ${_sanitize})
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:${option}>)
  endforeach()
  add_link_options(-fsanitize=${MOTLEY_SANITIZE})
endif()

# What every program must link to: the thread sanitizer's view of OpenMP, and nothing otherwise.
add_library(motley_sanitized INTERFACE)
if(MOTLEY_SANITIZE MATCHES "thread")
  add_library(motley_tsan_openmp OBJECT ${PROJECT_SOURCE_DIR}/tests/support/tsan_openmp.cc)
  target_link_libraries(motley_tsan_openmp PUBLIC ${CMAKE_DL_LIBS})
  target_sources(motley_sanitized INTERFACE $<TARGET_OBJECTS:motley_tsan_openmp>)
  target_link_libraries(motley_sanitized INTERFACE ${CMAKE_DL_LIBS})
endif()

# Gives `target` the shared precompiled header if what it links to brings torch; remembers it as bringing torch.
function(_motley_precompile target links)
  get_property(with_torch GLOBAL PROPERTY MOTLEY_WITH_TORCH)
  set(found FALSE)
  foreach(link ${links})
    if(link STREQUAL "motley::torch" OR link IN_LIST with_torch)
      set(found TRUE)
    endif()
  endforeach()
  if(NOT found)
    return()
  endif()
  string(REPLACE "motley_" "motley::" alias ${target})
  set_property(GLOBAL APPEND PROPERTY MOTLEY_WITH_TORCH ${target} ${alias})
  get_target_property(type ${target} TYPE)
  if(MOTLEY_PCH AND NOT type STREQUAL "INTERFACE_LIBRARY")
    if(NOT TARGET motley_torch_pch)
      file(WRITE ${PROJECT_BINARY_DIR}/torch_pch.cc "")
      add_library(motley_torch_pch OBJECT ${PROJECT_BINARY_DIR}/torch_pch.cc)
      target_link_libraries(motley_torch_pch PRIVATE motley::torch)
      target_precompile_headers(motley_torch_pch PRIVATE
        <ATen/core/Tensor.h> <ATen/Parallel.h> <ATen/TensorOperators.h> <torch/library.h>
        <algorithm> <cmath> <functional> <memory> <optional> <string> <vector>)
    endif()
    target_precompile_headers(${target} REUSE_FROM motley_torch_pch)
    if(type STREQUAL "EXECUTABLE")  # the header is compiled for libraries, and must be used with the same flag
      set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
      target_compile_options(${target} PRIVATE -fPIC)
    endif()
  endif()
endfunction()

# motley_library(name [SHARED] SOURCES a.cc ... [LINK target ...])
# Makes motley_<name>, alias motley::<name>, with includes rooted at the source tree.
function(motley_library name)
  cmake_parse_arguments(ARG "SHARED" "" "SOURCES;LINK" ${ARGN})
  if(NOT ARG_SOURCES)
    add_library(motley_${name} INTERFACE)
    set(scope INTERFACE)
  else()
    set(kind STATIC)
    if(ARG_SHARED)
      set(kind SHARED)
    endif()
    add_library(motley_${name} ${kind} ${ARG_SOURCES})
    set(scope PUBLIC)
  endif()
  target_include_directories(motley_${name} ${scope}
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(motley_${name} ${scope} ${ARG_LINK})
  set_target_properties(motley_${name} PROPERTIES EXPORT_NAME ${name})
  add_library(motley::${name} ALIAS motley_${name})
  _motley_precompile(motley_${name} "${ARG_LINK}")
  set_property(GLOBAL APPEND PROPERTY MOTLEY_LIBRARIES motley_${name})
endfunction()

# motley_test(folder SOURCES a_test.cc ... [LINK target ...])
# One program per folder, motley_<folder>_test, whose cases ctest lists one by one.
function(motley_test folder)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  if(NOT ARG_SOURCES)
    return()
  endif()
  add_executable(motley_${folder}_test ${ARG_SOURCES})
  target_link_libraries(motley_${folder}_test PRIVATE ${ARG_LINK} GTest::gtest_main motley_sanitized)
  target_compile_definitions(motley_${folder}_test PRIVATE
    MOTLEY_TESTS_DIR="${PROJECT_SOURCE_DIR}/tests")
  _motley_precompile(motley_${folder}_test "${ARG_LINK}")
  gtest_discover_tests(motley_${folder}_test TEST_PREFIX "${folder}." DISCOVERY_MODE PRE_TEST
    PROPERTIES TIMEOUT 600 ENVIRONMENT "${MOTLEY_TEST_ENVIRONMENT}")
endfunction()
