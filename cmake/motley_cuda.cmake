# Turns CUDA on: nvcc, the architectures, CUTLASS's headers and the CUDA half of libtorch.
#   motley::cuda        what a kernel file needs: flags, include folders, the CUDA runtime; sm_80 and sm_90a
#   motley::cuda_sm80   the same for files without Hopper's instructions, which Hopper runs too
#   motley::cuda_sm90   the same for files with Hopper's own instructions: sm_90a alone
#   motley::torch_cuda  what a file with CUDA tensors needs besides motley::torch
# Nothing here needs a GPU or a driver: programs build on one machine and run on another.
find_program(MOTLEY_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin /usr/local/cuda/bin)
if(NOT MOTLEY_NVCC)
  message(FATAL_ERROR "MOTLEY_CUDA is on but there is no nvcc. Install the CUDA 13 toolkit, set CUDA_HOME, "
    "or pass -DMOTLEY_NVCC=<path of nvcc>; or leave CUDA out with the preset 'cpu'.")
endif()
if(NOT CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_COMPILER ${MOTLEY_NVCC})
endif()
# Both are written out below: CMake 3.25 knows neither sm_90a nor that CUDA 13 speaks C++20.
set(CMAKE_CUDA_ARCHITECTURES OFF)
unset(CMAKE_CUDA_STANDARD)
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # torch's own; a second, static one would have its own state
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
message(STATUS "CUDA: ${CUDAToolkit_VERSION} (${CMAKE_CUDA_COMPILER})")

# The folder with cute/ and cutlass/: the one given, beside torch in its environment, or in build/venv.
file(GLOB _cutlass
  ${CUTLASS_ROOT}/include
  ${TORCH_ROOT}/../cutlass_library/source/include
  ${CMAKE_CURRENT_LIST_DIR}/../build/venv/lib/python3*/site-packages/cutlass_library/source/include)
find_path(MOTLEY_CUTLASS_INCLUDE cutlass/cutlass.h PATHS ${_cutlass})
if(NOT MOTLEY_CUTLASS_INCLUDE)
  message(FATAL_ERROR "no CUTLASS headers: expected cutlass/cutlass.h. `pip install nvidia-cutlass==4.2.0.0` "
    "beside torch brings them, or pass -DCUTLASS_ROOT=<the folder with include/cutlass>.")
endif()

# NDEBUG in every build type: with CUTLASS's asserts in, ptxas serialises wgmma.
# 177: unused functions that CUTLASS's headers declare.
function(_motley_cuda_target name)
  add_library(${name} INTERFACE IMPORTED GLOBAL)
  target_include_directories(${name} INTERFACE ${MOTLEY_CUTLASS_INCLUDE})
  target_compile_options(${name} INTERFACE
    "$<$<COMPILE_LANGUAGE:CUDA>:${ARGN};-std=c++20;-DNDEBUG;--expt-relaxed-constexpr;--expt-extended-lambda;-lineinfo;-diag-suppress=177;-Xcompiler=-Wall,-Wno-psabi>")
  target_link_libraries(${name} INTERFACE CUDA::cudart)
endfunction()
# Code for sm_80 runs on Ampere and Ada, and as PTX, which the driver compiles at the first use, on everything
# newer; sm_90a has the wgmma and TMA instructions of Hopper.
_motley_cuda_target(motley::cuda -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_80,code=compute_80
  -gencode=arch=compute_90a,code=sm_90a)
_motley_cuda_target(motley::cuda_sm80 -gencode=arch=compute_80,code=sm_80
  -gencode=arch=compute_80,code=compute_80 -gencode=arch=compute_80,code=sm_90)
_motley_cuda_target(motley::cuda_sm90 -gencode=arch=compute_90a,code=sm_90a)

# libtorch_cuda wants libraries of CUDA that this machine may lack; the run path finds them where it runs.
add_library(motley::torch_cuda INTERFACE IMPORTED GLOBAL)
foreach(library torch_cuda c10_cuda)
  if(NOT EXISTS ${TORCH_ROOT}/lib/lib${library}.so)
    message(FATAL_ERROR "no lib${library}.so under ${TORCH_ROOT}/lib: this torch was built without CUDA. "
      "Pass -DTORCH_ROOT=<a torch with CUDA 13>, or use the preset 'cpu'.")
  endif()
  target_link_libraries(motley::torch_cuda INTERFACE ${TORCH_ROOT}/lib/lib${library}.so)
endforeach()
# --no-as-needed: torch's CUDA kernels register themselves when the library loads; no symbol asks for it.
target_link_options(motley::torch_cuda INTERFACE -Wl,--allow-shlib-undefined -Wl,--no-as-needed)
target_link_libraries(motley::torch_cuda INTERFACE motley::torch motley::cuda)
