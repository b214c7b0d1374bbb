# What only a compiler of CUDA can tell; a test that has none says so and is skipped.
find_package(Python3 REQUIRED COMPONENTS Interpreter)

set(nvcc nvcc)
if(CMAKE_CUDA_COMPILER)
  set(nvcc ${CMAKE_CUDA_COMPILER})
endif()

# Every kernel for every architecture: warnings, spills, stack, and the table of device/resources.txt.
foreach(architectures IN ITEMS compute_75=sm_75 compute_80=sm_80,sm_86,sm_89 compute_90=sm_90,sm_100
                               compute_120=sm_120)
  string(REGEX REPLACE "=.*" "" name ${architectures})
  add_test(NAME nvcc/${name}
           COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/cuda/device/check.py
                   --nvcc=${nvcc} --launcher=${CMAKE_CXX_COMPILER_LAUNCHER} ${architectures})
  set_tests_properties(nvcc/${name} PROPERTIES SKIP_RETURN_CODE 77)
endforeach()

# A second compiler reads them; only a clang++ as new as the toolkit can.
add_test(NAME nvcc/clang COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/cuda/device/clang.py --nvcc=${nvcc}
                                 sm_75 sm_80 sm_90)
set_tests_properties(nvcc/clang PROPERTIES SKIP_RETURN_CODE 77)

# Two translation units that include everything link; with a device, they agree.
if(CMAKE_CUDA_COMPILER)
  add_executable(sinq_tests_cuda_link cuda/device/link_main.cu cuda/device/link_other.cu)
  target_link_libraries(sinq_tests_cuda_link PRIVATE sinq::cuda)
  target_compile_options(sinq_tests_cuda_link PRIVATE -Werror=all-warnings)
  set_target_properties(sinq_tests_cuda_link PROPERTIES UNITY_BUILD OFF)
  add_dependencies(sinq_cuda_programs sinq_tests_cuda_link)
  add_test(NAME nvcc/two_units COMMAND sinq_tests_cuda_link)
else()
  add_test(NAME nvcc/two_units COMMAND sh -c "echo 'SKIPPED: no compiler of CUDA'; exit 77")
endif()
set_tests_properties(nvcc/two_units PROPERTIES SKIP_RETURN_CODE 77)

# An outside project that asks an installed sinq for its component cuda.
add_test(
  NAME nvcc/package
  COMMAND
    ${CMAKE_COMMAND} -DPROJECT=cuda -DSOURCE_DIR=${PROJECT_SOURCE_DIR}
    -DWORK_DIR=${CMAKE_CURRENT_BINARY_DIR}/package/cuda -DCOMPILER=${CMAKE_CXX_COMPILER}
    -DCUDA_COMPILER=${CMAKE_CUDA_COMPILER} -DGENERATOR=${CMAKE_GENERATOR} -P
    ${CMAKE_CURRENT_SOURCE_DIR}/package/run.cmake)
set_tests_properties(nvcc/package PROPERTIES SKIP_REGULAR_EXPRESSION "SKIPPED: ")
