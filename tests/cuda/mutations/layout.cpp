#include "prelude.hpp"

#include "cuda/layout.hpp"

using namespace sinq_test;

TEST_CASE("words of codes go to where codes one by one go, and come back") {
  for (sinq::matrix_format f : every_form()) {
    f.rows = 29;
    f.cols = 210;
    check_words(f, 1);
  }
}
