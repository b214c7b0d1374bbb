# Installs the headers and the package that find_package(sinq) reads.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(sinq_package_dir ${CMAKE_INSTALL_DATADIR}/cmake/sinq)
install(TARGETS sinq EXPORT sinq-targets FILE_SET HEADERS)
if(TARGET sinq_cuda)
  install(TARGETS sinq_cuda EXPORT sinq-targets FILE_SET HEADERS)
endif()
install(EXPORT sinq-targets NAMESPACE sinq:: DESTINATION ${sinq_package_dir})
configure_package_config_file(cmake/sinq-config.cmake.in ${PROJECT_BINARY_DIR}/sinq-config.cmake
                              INSTALL_DESTINATION ${sinq_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/sinq-config-version.cmake COMPATIBILITY SameMinorVersion
                                 ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/sinq-config.cmake ${PROJECT_BINARY_DIR}/sinq-config-version.cmake
        DESTINATION ${sinq_package_dir})
