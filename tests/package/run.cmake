# Builds and runs one outside project that uses sinq.
# PROJECT: its folder's name; SOURCE_DIR: the repository; WORK_DIR: an empty place; COMPILER, GENERATOR: as here.
# For find_package, and for cuda with its CUDA_COMPILER, sinq is first configured on its own and installed to a prefix in
# WORK_DIR.
function(run)
  execute_process(COMMAND ${ARGV} COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
endfunction()

set(common -G ${GENERATOR} -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_BUILD_TYPE=Debug)
file(REMOVE_RECURSE ${WORK_DIR})
if(PROJECT STREQUAL cuda)
  if(NOT CUDA_COMPILER)
    message("SKIPPED: no compiler of CUDA")
    return()
  endif()
  list(APPEND common -DCMAKE_CUDA_COMPILER=${CUDA_COMPILER} -DCMAKE_CUDA_ARCHITECTURES=80 -DSINQ_CUDA=ON)
endif()
if(PROJECT MATCHES "^(find_package|cuda)$")
  run(${CMAKE_COMMAND} ${common} -S ${SOURCE_DIR} -B ${WORK_DIR}/sinq -DSINQ_BUILD_TESTS=OFF -DSINQ_BUILD_EXAMPLES=OFF
      -DSINQ_BUILD_BENCHMARKS=OFF -DCMAKE_INSTALL_PREFIX=${WORK_DIR}/prefix)
  run(${CMAKE_COMMAND} --install ${WORK_DIR}/sinq)
  list(APPEND common -DCMAKE_PREFIX_PATH=${WORK_DIR}/prefix)
else()
  list(APPEND common -DSINQ_SOURCE_DIR=${SOURCE_DIR})
endif()
run(${CMAKE_COMMAND} ${common} -S ${SOURCE_DIR}/tests/package/${PROJECT} -B ${WORK_DIR}/build)
run(${CMAKE_COMMAND} --build ${WORK_DIR}/build)
run(${WORK_DIR}/build/program)
