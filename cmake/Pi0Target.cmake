# pi0_library(room SOURCES ... PUBLIC ... PRIVATE ...) makes pi0::room; pi0_test(...) a ctest of it.
find_program(PI0_CCACHE ccache)
if(PI0_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime
      CCACHE_NOHASHDIR=1 "${PI0_CCACHE}")
endif()

set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}")
# Installed programs find LibTorch where it was, also when that is inside the source tree (.venv).
set(CMAKE_INSTALL_RPATH "${TORCH_INSTALL_PREFIX}/lib")
set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)

# What every target of ours is compiled with. Fused multiply-adds would change the bits of the
# normalisation against NumPy, so the compiler may not form them by itself.
add_library(pi0_options INTERFACE)
target_compile_features(pi0_options INTERFACE cxx_std_20)
target_compile_options(
  pi0_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Werror=return-type
                        -ffp-contract=off
                        # GCC collects garbage so often by default that it costs up to a sixth of the time.
                        $<$<CXX_COMPILER_ID:GNU>:--param=ggc-min-expand=500>
                        $<$<CXX_COMPILER_ID:GNU>:--param=ggc-min-heapsize=2000000>
                        # Where several files are compiled as one, the compiler takes all but the first for headers.
                        $<$<AND:$<CXX_COMPILER_ID:GNU>,$<BOOL:${CMAKE_UNITY_BUILD}>>:-Wno-subobject-linkage>)
if(PI0_SANITIZE)
  target_compile_options(pi0_options INTERFACE -fsanitize=${PI0_SANITIZE} -fno-omit-frame-pointer
                                               -fno-sanitize-recover=all)
  target_link_options(pi0_options INTERFACE -fsanitize=${PI0_SANITIZE})
  if(PI0_SANITIZE MATCHES "thread")
    # GCC warns that TSan does not see Asio's fences; what they order is also under Asio's mutexes.
    target_compile_options(pi0_options INTERFACE -Wno-tsan)
  endif()
endif()

# Headers that take seconds to parse, precompiled once: `pi0_precompiled_<kind>` for targets of that kind. All of them
# and all that use them are compiled with the same options, executables included, or the header does not fit.
function(pi0_precompiled_headers kind)
  cmake_parse_arguments(arg "" "" "HEADERS;LINK;OPTIONS" ${ARGN})
  if(NOT EXISTS "${PROJECT_BINARY_DIR}/precompiled.cpp")
    file(WRITE "${PROJECT_BINARY_DIR}/precompiled.cpp" "")
  endif()
  add_library(pi0_precompiled_${kind} STATIC EXCLUDE_FROM_ALL "${PROJECT_BINARY_DIR}/precompiled.cpp")
  target_link_libraries(pi0_precompiled_${kind} PRIVATE pi0_options ${arg_LINK})
  target_precompile_headers(pi0_precompiled_${kind} PRIVATE ${arg_HEADERS} <functional> <map> <memory> <string>
                            <string_view> <vector>)
  # -pthread: RE2 asks for it, and a header made without it does not fit.
  set(options -fPIC -pthread $<$<BOOL:${PI0_CCACHE}>:-fpch-preprocess> ${arg_OPTIONS})
  target_compile_options(pi0_precompiled_${kind} PRIVATE ${options})
  set(pi0_precompiled_${kind}_options ${options} PARENT_SCOPE)
endfunction()

function(pi0_precompiled target kind)
  target_precompile_headers(${target} REUSE_FROM pi0_precompiled_${kind})
  target_compile_options(${target} PRIVATE ${pi0_precompiled_${kind}_options})
endfunction()

if(PI0_WITH_TORCH)
  set(torch_headers <ATen/ATen.h> <torch/nn/module.h>)
  set(program_headers <fmt/format.h> <nlohmann/json.hpp>)
  # Nothing is computed in the programs themselves; -O1 compiles them in two thirds of the time.
  set(program OPTIONS $<$<CONFIG:RelWithDebInfo>:-O1>)
  pi0_precompiled_headers(torch HEADERS ${torch_headers} LINK pi0_torch)
  pi0_precompiled_headers(program ${program} HEADERS ${program_headers} LINK fmt::fmt nlohmann_json::nlohmann_json)
  pi0_precompiled_headers(torch_program ${program} HEADERS ${torch_headers} ${program_headers}
                          LINK pi0_torch fmt::fmt nlohmann_json::nlohmann_json)
endif()

function(pi0_library room)
  cmake_parse_arguments(arg "TORCH" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(pi0_${room} STATIC ${arg_SOURCES})
  add_library(pi0::${room} ALIAS pi0_${room})
  set_target_properties(pi0_${room} PROPERTIES EXPORT_NAME ${room})
  target_include_directories(
    pi0_${room} PUBLIC "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>" "$<INSTALL_INTERFACE:include/pi0>")
  target_compile_features(pi0_${room} PUBLIC cxx_std_20)
  target_link_libraries(pi0_${room} PUBLIC ${arg_PUBLIC} PRIVATE $<BUILD_INTERFACE:pi0_options>
                                                                 ${arg_PRIVATE})
  if(arg_TORCH)
    target_link_libraries(pi0_${room} PUBLIC pi0_torch)
    pi0_precompiled(pi0_${room} torch)
  endif()
endfunction()

# CUDA files of a room, by themselves: nvcc knows neither the others' options nor their precompiled header. Fused
# multiply-adds would change the bits of what the CPU computes as well.
function(pi0_cuda_sources room)
  add_library(pi0_${room}_cuda OBJECT ${ARGN})
  set_target_properties(pi0_${room}_cuda PROPERTIES CUDA_STANDARD 20 POSITION_INDEPENDENT_CODE ON)
  target_include_directories(pi0_${room}_cuda PRIVATE "${PROJECT_SOURCE_DIR}")
  target_compile_options(pi0_${room}_cuda PRIVATE --expt-relaxed-constexpr -fmad=false)
  target_sources(pi0_${room} PRIVATE $<TARGET_OBJECTS:pi0_${room}_cuda>)
endfunction()

function(pi0_executable name)
  cmake_parse_arguments(arg "TORCH" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}")
  target_link_libraries(${name} PRIVATE pi0_options ${arg_LINK})
  # The search path holds for the libraries of libraries as well, as the tarball needs it.
  target_link_options(${name} PRIVATE LINKER:--disable-new-dtags)
  if(arg_TORCH)
    pi0_precompiled(${name} torch_program)
  endif()
endfunction()

# One Catch2 executable and a ctest of that name; tests run from the tests folder. PARTS
# (name, tags, name, tags, ...) makes several ctests of it that run side by side.
function(pi0_test name)
  cmake_parse_arguments(arg "TORCH" "" "SOURCES;LINK;PARTS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}" "${PROJECT_SOURCE_DIR}/tests")
  target_link_libraries(${name} PRIVATE pi0_options pi0_catch_main ${arg_LINK})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/tests")
  if(arg_TORCH)
    pi0_precompiled(${name} torch)
  endif()
  if(NOT arg_PARTS)
    add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}/tests")
  endif()
  while(arg_PARTS)
    list(POP_FRONT arg_PARTS part tags)
    add_test(NAME ${part} COMMAND ${name} "${tags}" WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}/tests")
  endwhile()
endfunction()
