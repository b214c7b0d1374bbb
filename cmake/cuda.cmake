# sinq::cuda: the kernels and launchers, for targets whose sources CUDA compiles. The project that uses it enables the
# language; CMake 3.25 knows no feature that asks nvcc 13 for C++20, so that the option is passed as it is.
file(GLOB sinq_cuda_headers CONFIGURE_DEPENDS include/sinq/cuda.hpp include/sinq/cuda/*.hpp include/sinq/cuda/*.cuh)
add_library(sinq_cuda INTERFACE)
add_library(sinq::cuda ALIAS sinq_cuda)
set_target_properties(sinq_cuda PROPERTIES EXPORT_NAME cuda)
target_sources(sinq_cuda INTERFACE FILE_SET HEADERS BASE_DIRS include FILES ${sinq_cuda_headers})
target_compile_options(sinq_cuda INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>)
target_link_libraries(sinq_cuda INTERFACE sinq::sinq)

# Our own tests and the selftest; without a compiler they are skipped.
if(SINQ_BUILD_TESTS OR SINQ_BUILD_EXAMPLES)
  add_custom_target(sinq_cuda_programs)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
  endif()
endif()
