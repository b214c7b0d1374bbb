#include <sinq/compile.hpp>
