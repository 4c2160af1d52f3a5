# Part of the installation of the component `bundle`, after `programs`: lib/ gets every library that the programs need but
# glibc's, so that they run on a machine that has nothing else. PI0_TORCH_PREFIX is LibTorch's folder.
set(prefix "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}")
set(programs "${prefix}/bin/pi0" "${prefix}/bin/pi0-server")
file(GET_RUNTIME_DEPENDENCIES EXECUTABLES ${programs} RESOLVED_DEPENDENCIES_VAR libraries
     PRE_EXCLUDE_REGEXES "^(ld-linux-x86-64|libc|libdl|libm|libpthread|librt)\\.so\\.")

function(run)
  execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE output OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(output "${output}" PARENT_SCOPE)
endfunction()

file(MAKE_DIRECTORY "${prefix}/lib" "${prefix}/licenses")
foreach(library IN LISTS libraries)
  cmake_path(GET library FILENAME name)
  file(REAL_PATH "${library}" file)
  run(strip --strip-unneeded -o "${prefix}/lib/${name}" "${file}")
  if(library MATCHES "^${PI0_TORCH_PREFIX}/")
    continue()
  endif()
  cmake_path(GET file FILENAME file_name)
  run(dpkg-query --search "*/x86_64-linux-gnu/${file_name}")  # "libfmt9:amd64: /usr/lib/x86_64-linux-gnu/libfmt.so..."
  string(REGEX MATCH "^[^:,]+" package "${output}")
  file(COPY_FILE "/usr/share/doc/${package}/copyright" "${prefix}/licenses/${package}")
endforeach()
file(GLOB torch_licenses "${PI0_TORCH_PREFIX}/../torch-*.dist-info/licenses" "${PI0_TORCH_PREFIX}/LICENSE")
file(COPY ${torch_licenses} DESTINATION "${prefix}/licenses/libtorch")

foreach(program IN LISTS programs)
  run(strip "${program}")
  file(RPATH_SET FILE "${program}" NEW_RPATH "$ORIGIN/../lib")
endforeach()
