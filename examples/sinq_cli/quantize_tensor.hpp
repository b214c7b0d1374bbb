#pragma once

#include "quantize_job.hpp"

#include <sinq/pack/pack.hpp>

namespace sinq_cli {

/// Quantizes, measures and writes one tensor of the input.
/// @param measured  what is known of its inputs if that was measured here; null: what the job's file says, if anything
/// @errors          those of the method, of what it needs, and of the writer; errc::cancelled; names file and tensor
[[nodiscard]] sinq::result<sinq::packed_matrix> quantize_tensor(quantize_job& work, std::size_t tensor,
                                                                const sinq::input_moments* measured,
                                                                sinq::io::model_writer& to, progress_bar& progress);

/// Writes one tensor of the input as it is.
/// @errors  those of copy_tensor; names file and tensor
[[nodiscard]] sinq::result<void> keep_tensor(quantize_job& work, std::size_t tensor, sinq::io::model_writer& to,
                                             progress_bar& progress);

} // namespace sinq_cli
