# The sources of the kernels, compiled for the CPU: see emulation/emulation.hpp.
add_library(sinq_tests_emulation INTERFACE)
target_compile_definitions(sinq_tests_emulation INTERFACE SINQ_CUDA_EMULATION="cuda/emulation/emulation.hpp")
# Hundreds of kernels compile faster at -O1. What the first round of a loop writes, g++ 12 believes unwritten where it
# does not unroll the loop as nvcc does.
target_compile_options(sinq_tests_emulation INTERFACE -ffp-contract=off $<$<CONFIG:Release>:-O1> ${SINQ_TEST_OPTIONS}
                                                      $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
target_link_libraries(sinq_tests_cuda PRIVATE sinq_tests_emulation)

# The kernels' tests once more, with each access to shared and device memory watched for races: the sources are compiled
# with -fsanitize=thread, but what that calls is in races/instrumentation.cpp, which is not.
string(FIND "${CMAKE_CXX_FLAGS}" "-fsanitize" sinq_sanitized)
if(sinq_sanitized EQUAL -1)
  file(GLOB sources CONFIGURE_DEPENDS cuda/*_test.cpp)
  list(FILTER sources EXCLUDE REGEX "/emulation[a-z_]*\\.cpp$")
  add_library(sinq_tests_cuda_watched OBJECT ${sources} cuda/races/races_test.cpp)
  target_link_libraries(sinq_tests_cuda_watched PRIVATE sinq_tests_emulation sinq_tests_common)
  target_compile_options(sinq_tests_cuda_watched PRIVATE -fsanitize=thread)
  add_executable(sinq_tests_cuda_races cuda/races/instrumentation.cpp)
  target_link_libraries(sinq_tests_cuda_races PRIVATE sinq_tests_cuda_watched sinq_tests_main sinq_tests_emulation
                                                      sinq_tests_common)
  catch_discover_tests(sinq_tests_cuda_races TEST_PREFIX "cuda_races/" PROPERTIES SKIP_RETURN_CODE 77)
endif()
