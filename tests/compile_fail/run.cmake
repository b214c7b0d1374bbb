# Tries one snippet both ways. As it stands it must compile; with SINQ_WRONG defined it must not, and the compiler must
# say what the snippet's first line, "// expected: REGEX", asks for.
# COMPILE: the compiler with its options; SNIPPET: the file.
file(STRINGS ${SNIPPET} expected LIMIT_COUNT 1)
string(REGEX REPLACE "^// expected: " "" expected "${expected}")

execute_process(COMMAND ${COMPILE} ${SNIPPET} RESULT_VARIABLE right ERROR_VARIABLE output)
if(NOT right EQUAL 0)
  message(FATAL_ERROR "the correct variant does not compile:\n${output}")
endif()
execute_process(COMMAND ${COMPILE} -DSINQ_WRONG ${SNIPPET} RESULT_VARIABLE wrong ERROR_VARIABLE output)
if(wrong EQUAL 0)
  message(FATAL_ERROR "the wrong variant compiles")
endif()
if(NOT output MATCHES "${expected}")
  message(FATAL_ERROR "the wrong variant fails, but not with '${expected}':\n${output}")
endif()
