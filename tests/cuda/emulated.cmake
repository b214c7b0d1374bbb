# The sources of the kernels, compiled for the CPU: see emulation/emulation.hpp.
add_library(sinq_tests_emulation INTERFACE)
target_compile_definitions(sinq_tests_emulation INTERFACE SINQ_CUDA_EMULATION="cuda/emulation/emulation.hpp")
target_compile_options(sinq_tests_emulation INTERFACE -ffp-contract=off)
target_link_libraries(sinq_tests_cuda PRIVATE sinq_tests_emulation)
