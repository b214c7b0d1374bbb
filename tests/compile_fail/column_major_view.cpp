// expected: no matching function|no matching constructor|no viable conversion
#include <sinq/core/matrix_view.hpp>

#ifdef SINQ_WRONG
using matrix = Eigen::MatrixXf;
#else
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
#endif

sinq::matrix_view<float> view(matrix& m) {
  return sinq::matrix_view<float>{m};
}
