# Installs the build tree, builds tools/examples against it with find_package(pi0), and runs them on golden checkpoints.
# cmake -DBUILD=<build tree> -DSOURCE=<source tree> -DTORCH=<Torch_DIR> -DFLAGS=<compiler's> -P run.cmake
set(work "${BUILD}/package_test")
set(goldens "${SOURCE}/tests/goldens")
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${ARGN}: ${result}\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()
file(REMOVE_RECURSE "${work}")
run("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${work}/install")
find_program(ccache ccache)
if(ccache)
  set(launcher "-DCMAKE_CXX_COMPILER_LAUNCHER=${ccache}")
endif()
run("${CMAKE_COMMAND}" -S "${SOURCE}/tools/examples" -B "${work}/build" -G Ninja ${launcher}
    "-DCMAKE_PREFIX_PATH=${work}/install" "-DTorch_DIR=${TORCH}" "-DCMAKE_CXX_FLAGS=${FLAGS}"
    -DCMAKE_EXE_LINKER_FLAGS=-Wl,--strip-debug)  # which halves the time
run("${CMAKE_COMMAND}" --build "${work}/build" --parallel 2)
run("${work}/install/bin/pi0" --version)
foreach(example IN ITEMS run_model measure_pair measure_attention skip_vision all_pairs)
  run("${work}/build/${example}" "${goldens}/tiny_pi05")
  if(NOT output MATCHES "[0-9]")
    message(FATAL_ERROR "${example} printed no figures\n${output}")
  endif()
endforeach()
run(bash "${SOURCE}/tests/package/serve.sh" "${work}/build/serve_quantized" "${work}/install/bin/pi0"
    pi05_droid_jointpos_polaris "${goldens}/policies/pi05_droid_jointpos_polaris")
if(NOT output MATCHES "action_head +[0-9]+ +[0-9.e-]+")
  message(FATAL_ERROR "serve_quantized printed no statistics\n${output}")
endif()
