# The package `pi0`: find_package(pi0) gives pi0::protocol, pi0::server, pi0::formats, pi0::json, pi0::orbax,
# pi0::model, pi0::quant and pi0::policy.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/pi0")
set(rooms pi0_protocol pi0_server pi0_formats pi0_json pi0_orbax)
set(headers protocol server)
if(PI0_WITH_TORCH)
  list(APPEND rooms pi0_model pi0_quant pi0_policy)
  list(APPEND headers model quant)
endif()
install(TARGETS ${rooms} EXPORT pi0-targets)
install(EXPORT pi0-targets NAMESPACE pi0:: DESTINATION "${package_dir}")
install(DIRECTORY ${headers} DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/pi0" FILES_MATCHING
        PATTERN "*.h")
if(NOT PI0_WITH_TORCH)  # else their folders are quant's and model's
  install(DIRECTORY quant/formats DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/pi0/quant" FILES_MATCHING
          PATTERN "*.h")
  install(DIRECTORY model/orbax DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/pi0/model" FILES_MATCHING
          PATTERN "*.h")
  install(FILES model/checkpoint_error.h model/json_fields.h model/text_file.h model/write_bytes.h
          DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/pi0/model")
endif()
install(DIRECTORY configs DESTINATION "${CMAKE_INSTALL_DATADIR}/pi0" COMPONENT programs)

configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/pi0Config.cmake.in"
                              "${PROJECT_BINARY_DIR}/pi0Config.cmake"
                              INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/pi0ConfigVersion.cmake"
                                 COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/pi0Config.cmake" "${PROJECT_BINARY_DIR}/pi0ConfigVersion.cmake"
              "${CMAKE_CURRENT_LIST_DIR}/Dependencies.cmake" DESTINATION "${package_dir}")

# `cmake --build ... --target package` makes a tarball of the programs and of every library that they need. LibTorch for
# CUDA loads many more, by names that no file tells.
if(PI0_WITH_TORCH AND NOT PI0_WITH_CUDA)
  install(CODE "set(PI0_TORCH_PREFIX \"${TORCH_INSTALL_PREFIX}\")" COMPONENT bundle EXCLUDE_FROM_ALL)
  install(SCRIPT "${CMAKE_CURRENT_LIST_DIR}/Bundle.cmake" COMPONENT bundle EXCLUDE_FROM_ALL)
  install(FILES LICENSE tools/tarball/README.md DESTINATION . COMPONENT bundle EXCLUDE_FROM_ALL)
  install(DIRECTORY tools/haproxy tools/kubernetes tools/systemd DESTINATION "${CMAKE_INSTALL_DATADIR}/pi0"
          COMPONENT bundle EXCLUDE_FROM_ALL)
  set(CPACK_GENERATOR TGZ)
  set(CPACK_PACKAGE_FILE_NAME "pi0-${PROJECT_VERSION}-linux-x86_64")
  set(CPACK_INSTALL_CMAKE_PROJECTS "${PROJECT_BINARY_DIR};pi0;programs;/" "${PROJECT_BINARY_DIR};pi0;bundle;/")
  include(CPack)
endif()
