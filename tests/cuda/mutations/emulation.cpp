#include "cuda/emulation/emulation.hpp"

namespace sinq_emulation::detail {
template void mma<binary16>(float (&)[4], const std::uint32_t (&)[4], const std::uint32_t (&)[2], const char*,
                            const place&);
template void mma<bfloat16>(float (&)[4], const std::uint32_t (&)[4], const std::uint32_t (&)[2], const char*,
                            const place&);
} // namespace sinq_emulation::detail
