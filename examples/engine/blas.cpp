#include "blas.hpp"

#include <cblas.h>

namespace engine {
namespace {

/// Our threads each call OpenBLAS, which must not start its own beside them.
const bool is_single_threaded = (openblas_set_num_threads(1), true);

blasint size(std::size_t n) {
  return static_cast<blasint>(n);
}

void call(CBLAS_TRANSPOSE b_is, std::size_t k, sinq::matrix_view<const float> a, sinq::matrix_view<const float> b,
          sinq::matrix_view<float> c) {
  SINQ_ASSERT(is_single_threaded && a.rows() == c.rows() && a.cols() == k);
  if (a.rows() == 1)
    return cblas_sgemv(CblasRowMajor, b_is == CblasTrans ? CblasNoTrans : CblasTrans, size(b.rows()), size(b.cols()), 1,
                       b.data(), size(b.stride()), a.data(), 1, 0, c.data(), 1);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, b_is, size(c.rows()), size(c.cols()), size(k), 1, a.data(), size(a.stride()),
              b.data(), size(b.stride()), 0, c.data(), size(c.stride()));
}

} // namespace

void multiply_transposed(sinq::matrix_view<const float> a, sinq::matrix_view<const float> b,
                         sinq::matrix_view<float> c) {
  SINQ_ASSERT(b.rows() == c.cols());
  call(CblasTrans, b.cols(), a, b, c);
}

void multiply(sinq::matrix_view<const float> a, sinq::matrix_view<const float> b, sinq::matrix_view<float> c) {
  SINQ_ASSERT(b.cols() == c.cols());
  call(CblasNoTrans, b.rows(), a, b, c);
}

} // namespace engine
