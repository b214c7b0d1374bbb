#define CATCH_CONFIG_RUNNER
#include "support/catch.hpp"

int main(int argc, char** argv) {
  constexpr int skipped_status = 77;
  const int failures = Catch::Session().run(argc, argv);
  if (failures != 0) return 1;
  return sinq_test::skipped_cases > 0 ? skipped_status : 0;
}
