#pragma once

/// What PTX instructions do that C++ has no word for, from the tables of the PTX manual: mma.sync, ldmatrix, cp.async,
/// lop3. With g = lane / 4 and p = lane % 4, a word holds two neighbours, the lower one in its low half:
///
///     mma.m16n8k16   A 16 x 16   a[0] row g,     columns 2p, 2p + 1     a[2] row g,     columns 2p + 8, 2p + 9
///                                a[1] row g + 8, columns 2p, 2p + 1     a[3] row g + 8, columns 2p + 8, 2p + 9
///                    B 16 x 8    b[0] rows 2p, 2p + 1, column g         b[1] rows 2p + 8, 2p + 9, column g
///                    D 16 x 8    d[0], d[1] row g, columns 2p, 2p + 1   d[2], d[3] row g + 8
///     ldmatrix       lane 8i + r gives the address of row r of matrix i; r[i] gets row g, columns 2p, 2p + 1 of it,
///     or,
///                    transposed, rows 2p, 2p + 1 of column g

#include "half.hpp"
#include "warp.hpp"

namespace sinq_emulation {

/// How products are summed up.
enum class summation {
  exact,     ///< one rounding at the end, to nearest
  truncating ///< as an A100 is found to do: 8 products and the sum at a time, aligned to the largest, the rest cut off
};

namespace detail {

inline summation current_summation = summation::exact;

/// 8 products and what is summed so far, each cut off 24 bits below the largest of them.
[[nodiscard]] inline double truncated_sum(double sum, const std::array<double, 16>& products, std::size_t begin) {
  constexpr int kept_bits = 23;
  double largest = std::abs(sum);
  for (std::size_t k = begin; k < begin + 8; ++k) largest = std::max(largest, std::abs(products[k]));
  if (largest == 0.0 || !std::isfinite(largest)) {
    for (std::size_t k = begin; k < begin + 8; ++k) sum += products[k];
    return sum;
  }
  const double unit = std::ldexp(1.0, std::ilogb(largest) - kept_bits - 1);
  double cut = std::trunc(sum / unit) * unit;
  for (std::size_t k = begin; k < begin + 8; ++k) cut += std::trunc(products[k] / unit) * unit;
  if (cut == 0.0) return 0.0;
  const double last = std::ldexp(1.0, std::ilogb(cut) - kept_bits);
  return std::trunc(cut / last) * last;
}

template <class Format>
[[nodiscard]] double half_of(std::uint32_t word, unsigned half) {
  return to_double(sinq_emulation_float16<Format>{static_cast<std::uint16_t>(word >> (16 * half))});
}

template <class Format>
void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const char* name,
         const place& where) {
  const std::uint32_t in[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  const exchange_board& board = exchange(0xffffffffU, name, in, sizeof in, where);
  const unsigned group = current_lane() / 4;
  const unsigned pair = current_lane() % 4;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = group + 8 * (i / 2);
    const unsigned column = 2 * pair + i % 2;
    std::array<double, 16> products{};
    for (unsigned k = 0; k < 16; ++k) {
      const std::uint32_t of_a = board.words[row % 8 * 4 + k % 8 / 2][row / 8 + 2 * (k / 8)];
      const std::uint32_t of_b = board.words[column * 4 + k % 8 / 2][4 + k / 8];
      products[k] = half_of<Format>(of_a, k % 2) * half_of<Format>(of_b, k % 2);
    }
    double sum = d[i];
    if (current_summation == summation::truncating)
      sum = truncated_sum(truncated_sum(sum, products, 0), products, 8);
    else
      for (const double product : products) sum += product;
    d[i] = static_cast<float>(sum);
  }
}

/// What the copying engine does to shared memory counts as this thread's.
inline void note_write(const void* address, std::size_t bytes) {
  if (access_watcher != nullptr) access_watcher(address, bytes, true);
}

inline void check_aligned(const void* address, unsigned bytes, const char* operation, const place& where) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0)
    fail(where, operation, ": an address is not aligned to ", bytes, " bytes");
}

} // namespace detail

/// The summation of all mma until the end of a scope.
class scoped_summation {
public:
  explicit scoped_summation(summation next) : before_{std::exchange(detail::current_summation, next)} {}
  scoped_summation(const scoped_summation&) = delete;
  scoped_summation& operator=(const scoped_summation&) = delete;
  ~scoped_summation() { detail::current_summation = before_; }

private:
  summation before_;
};

/// d += a b
inline void mma_m16n8k16_f16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                             const place& where = place::current()) {
  detail::mma<binary16>(d, a, b, "mma.f16", where);
}
inline void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                              const place& where = place::current()) {
  detail::mma<bfloat16>(d, a, b, "mma.bf16", where);
}

/// Count matrices of 8 x 8 16-bit elements; `row` is the address that this lane gives.
template <int Count, bool Transposed = false>
void ldmatrix(std::uint32_t (&r)[Count], const void* row, const place& where = place::current()) {
  static_assert(Count == 1 || Count == 2 || Count == 4);
  const auto address = reinterpret_cast<std::uintptr_t>(row);
  const detail::exchange_board& board =
      detail::exchange(0xffffffffU, Transposed ? "ldmatrix.trans" : "ldmatrix", &address, sizeof address, where);
  const unsigned group = detail::current_lane() / 4;
  const unsigned pair = detail::current_lane() % 4;
  for (unsigned i = 0; i < Count; ++i) {
    r[i] = 0;
    for (unsigned half = 0; half < 2; ++half) {
      const unsigned from_row = Transposed ? 2 * pair + half : group;
      const unsigned column = Transposed ? group : 2 * pair + half;
      const auto* source = detail::brought<const unsigned char*>(board, 8 * i + from_row, where);
      detail::check_aligned(source, 16, "ldmatrix", where);
      std::uint16_t element = 0;
      std::memcpy(&element, source + 2 * column, sizeof element);
      r[i] |= std::uint32_t{element} << (16 * half);
    }
  }
}

/// Starts to copy Bytes from global to shared memory, or zeros where `filled` is false. Until it is waited for, 0xff is
/// there: neither the old nor the new contents may be counted on.
template <int Bytes>
void cp_async(void* target, const void* source, bool filled = true, const place& where = place::current()) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
  detail::check_aligned(target, Bytes, "cp.async", where);
  if (filled) detail::check_aligned(source, Bytes, "cp.async", where);
  detail::note_write(target, Bytes);
  std::memset(target, detail::untouched, Bytes);
  detail::current_thread->copies.back().push_back({target, source, Bytes, filled});
}
inline void cp_async_commit() {
  detail::current_thread->copies.emplace_back();
}
/// Waits until at most Pending of this thread's last groups are under way.
template <int Pending>
void cp_async_wait() {
  auto& groups = detail::current_thread->copies;
  while (groups.size() > Pending + 1) {
    for (const detail::pending_copy& copy : groups.front()) {
      detail::note_write(copy.target, copy.bytes);
      if (copy.filled)
        std::memcpy(copy.target, copy.source, copy.bytes);
      else
        std::memset(copy.target, 0, copy.bytes);
    }
    groups.erase(groups.begin());
  }
}

/// Each bit of the result is bit 4a + 2b + c of Table.
template <unsigned Table>
[[nodiscard]] std::uint32_t lop3(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t result = 0;
  for (unsigned k = 0; k < 8; ++k)
    if ((Table >> k & 1U) != 0)
      result |= ((k & 4U) != 0 ? a : ~a) & ((k & 2U) != 0 ? b : ~b) & ((k & 1U) != 0 ? c : ~c);
  return result;
}

} // namespace sinq_emulation
