# Finds libtorch without its own CMake package, which asks for a whole CUDA toolkit where torch was
# built with CUDA. CPU programs need only libtorch_cpu and libc10.
if(NOT TORCH_ROOT)
  file(GLOB _candidates ${CMAKE_CURRENT_LIST_DIR}/../build/venv/lib/python3*/site-packages/torch)
  if(NOT _candidates)
    find_program(_python NAMES python3)
    if(_python)
      execute_process(COMMAND ${_python} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
                      OUTPUT_VARIABLE _candidates OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    endif()
  endif()
  if(_candidates)
    list(GET _candidates 0 _found)
    set(TORCH_ROOT ${_found} CACHE PATH "" FORCE)
  endif()
endif()
if(NOT EXISTS ${TORCH_ROOT}/include/ATen/core/Tensor.h OR NOT EXISTS ${TORCH_ROOT}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "no libtorch under TORCH_ROOT='${TORCH_ROOT}': expected include/ATen and lib/libtorch_cpu.so. "
    "Run scripts/test.sh or scripts/quickstart.sh, which install it into build/venv, or pass -DTORCH_ROOT=<the torch package>.")
endif()
message(STATUS "torch: ${TORCH_ROOT}")

# at::parallel_for is a header that runs in one thread unless OpenMP is on where it is compiled. The flag is
# for compiling only: linking with it would bring the compiler's OpenMP runtime beside the one torch carries,
# and two thread pools. A torch that carries none uses the system's, and so do we.
file(GLOB _openmp ${TORCH_ROOT}/lib/libgomp*.so* ${TORCH_ROOT}/../torch.libs/libgomp*.so* ${TORCH_ROOT}/lib/libomp*.so)
if(_openmp)
  list(GET _openmp 0 _openmp)
else()
  set(_openmp gomp)
endif()

# Imported, so that the installed package can make its own for the torch it finds.
add_library(motley::torch INTERFACE IMPORTED GLOBAL)
target_include_directories(motley::torch INTERFACE
  ${TORCH_ROOT}/include ${TORCH_ROOT}/include/torch/csrc/api/include)
target_compile_options(motley::torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
target_link_libraries(motley::torch INTERFACE
  ${TORCH_ROOT}/lib/libtorch_cpu.so ${TORCH_ROOT}/lib/libc10.so ${_openmp})
target_link_options(motley::torch INTERFACE -Wl,-rpath,${TORCH_ROOT}/lib -Wl,-rpath-link,${TORCH_ROOT}/lib)
