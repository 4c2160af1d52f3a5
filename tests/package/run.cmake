# Installs the build tree, builds tests/package against it with find_package(pi0), runs the result.
# cmake -DBUILD=<build tree> -DSOURCE=<source tree> -DTORCH=<Torch_DIR> -DFLAGS=<compiler's> -P run.cmake
set(work "${BUILD}/package_test")
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${ARGN}\n${output}")
  endif()
endfunction()
file(REMOVE_RECURSE "${work}")
run("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${work}/install")
run("${CMAKE_COMMAND}" -S "${SOURCE}/tests/package" -B "${work}/build" -G Ninja
    "-DCMAKE_PREFIX_PATH=${work}/install" "-DTorch_DIR=${TORCH}" "-DREADME=${SOURCE}/README.md"
    "-DCMAKE_CXX_FLAGS=${FLAGS}")
run("${CMAKE_COMMAND}" --build "${work}/build")
run("${work}/build/uses")
run("${work}/install/bin/pi0" --version)
