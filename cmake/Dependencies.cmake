# Every third-party library, once. Versions are those of Debian 12 or newer; LibTorch 2.11 or newer.
# The installed package includes this file too, so it must not assume the source tree.
include_guard(GLOBAL)

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(Boost 1.74 REQUIRED)
find_package(spdlog 1.10 REQUIRED)
find_package(CLI11 2.1 REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(OpenSSL 1.1.1 REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(prometheus REQUIRED IMPORTED_TARGET GLOBAL prometheus-cpp-core)
pkg_check_modules(zstd REQUIRED IMPORTED_TARGET GLOBAL libzstd)

# The CMake package of msgpack-cxx changes its name between versions; the library is header-only.
find_path(PI0_MSGPACK_INCLUDE_DIR msgpack.hpp REQUIRED)
if(NOT TARGET pi0_msgpack)
  add_library(pi0_msgpack INTERFACE IMPORTED GLOBAL)
  target_include_directories(pi0_msgpack SYSTEM INTERFACE "${PI0_MSGPACK_INCLUDE_DIR}")
  target_compile_definitions(pi0_msgpack INTERFACE MSGPACK_NO_BOOST)
endif()

if(PI0_WITH_TORCH)
  pkg_check_modules(jpeg REQUIRED IMPORTED_TARGET GLOBAL libjpeg)
  pkg_check_modules(png REQUIRED IMPORTED_TARGET GLOBAL libpng)
  pkg_check_modules(sentencepiece REQUIRED IMPORTED_TARGET GLOBAL sentencepiece)
  pkg_check_modules(stb REQUIRED IMPORTED_TARGET GLOBAL stb)
  pkg_check_modules(re2 REQUIRED IMPORTED_TARGET GLOBAL re2)

  # Where LibTorch is: CMAKE_PREFIX_PATH or Torch_DIR if it finds one, else the active Python's.
  find_package(Torch 2.11 QUIET)
  if(NOT Torch_FOUND)
    find_program(PI0_PYTHON NAMES python3 python)
    execute_process(
      COMMAND "${PI0_PYTHON}" -c "import torch; print(torch.utils.cmake_prefix_path)"
      OUTPUT_VARIABLE PI0_TORCH_PREFIX OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    find_package(Torch 2.11 REQUIRED PATHS "${PI0_TORCH_PREFIX}")
  endif()

  # A LibTorch for CUDA, which needs CUDA's toolkit in any case, makes ours one for CUDA.
  set(PI0_WITH_CUDA OFF)
  if(TARGET torch_cuda)
    set(PI0_WITH_CUDA ON)
    find_package(CUDAToolkit REQUIRED)
  endif()

  # LibTorch's include folder carries its own fmt, which breaks the distribution's spdlog. Its folders
  # are searched after all others.
  if(NOT TARGET pi0_torch)
    add_library(pi0_torch INTERFACE IMPORTED GLOBAL)
    # LibTorch's wheels for CUDA export a std::filesystem of their own, whose remove_all() calls null: the
    # compiler's comes first.
    target_link_options(pi0_torch INTERFACE LINKER:--push-state,--no-as-needed,-lstdc++,--pop-state)
    target_link_libraries(pi0_torch INTERFACE ${TORCH_LIBRARIES})
    # at::parallel_for is compiled into its callers, serial without this. It must share LibTorch's own
    # OpenMP runtime: the idle threads of two spin in each other's way.
    file(GLOB PI0_TORCH_GOMP "${TORCH_INSTALL_PREFIX}/lib/libgomp*.so*")
    if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # Another compiler's OpenMP is another runtime: without one, loops run on one thread.
    elseif(PI0_TORCH_GOMP)
      list(GET PI0_TORCH_GOMP 0 PI0_TORCH_GOMP)
      target_compile_options(pi0_torch INTERFACE -fopenmp)
      target_link_libraries(pi0_torch INTERFACE "${PI0_TORCH_GOMP}")
    else()
      find_package(OpenMP REQUIRED)
      target_link_libraries(pi0_torch INTERFACE OpenMP::OpenMP_CXX)
    endif()
    foreach(dir IN LISTS TORCH_INCLUDE_DIRS)
      target_compile_options(pi0_torch INTERFACE "SHELL:-idirafter \"${dir}\"")
    endforeach()
    foreach(target IN ITEMS torch torch_library torch_cpu torch_cpu_library torch_cuda
                            torch_cuda_library c10 c10_cuda)
      if(TARGET ${target})
        set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "")
      endif()
    endforeach()
  endif()
endif()
