# What our own code is compiled with; never part of sinq::sinq.
add_library(sinq_warnings INTERFACE)
target_compile_options(
  sinq_warnings
  INTERFACE -Wall -Wextra -Wshadow -Wconversion -Wpedantic -Werror
            # g++ 12 sees overlaps in std::string's operator+ that cannot be (GCC bug 105651)
            $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
