#ifdef SINQ_BENCH_ONEDNN

#include "peers.hpp"

#include <sinq/core/convert.hpp>

#include <oneapi/dnnl/dnnl.hpp>

#include <cmath>
#include <cstring>
#include <deque>
#include <map>

/// Of libgomp, whose header other compilers do not find.
extern "C" void omp_set_num_threads(int threads);

namespace sinq_bench {

namespace {

using dnnl::memory;

/// Turns floats into bytes by the largest of them. @return the step
float to_bytes(std::span<const float> from, std::int8_t* to) {
  float most = 0;
  for (const float value : from) most = std::max(most, std::fabs(value));
  const float step = most == 0 ? 1 : most / 127;
  for (std::size_t n = 0; n < from.size(); ++n) to[n] = static_cast<std::int8_t>(std::lrintf(from[n] / step));
  return step;
}

/// oneDNN's matmul with weights of one type, in the layout that it asks for with each number of tokens.
class onednn_matmul {
public:
  onednn_matmul(const peer_input& in, memory::data_type type) : in_{in}, type_{type} {
    const std::size_t size = in.weights.rows * in.weights.cols;
    plain_.resize(size * memory::data_type_size(type_));
    store(in.weights.matrix(0), size, plain_.data());
    x_.resize(in.io.x.rows() * in.io.x.cols() * memory::data_type_size(type_));
  }

  [[nodiscard]] double weight_bytes() const { return static_cast<double>(plain_.size()); }

  void operator()(std::size_t tokens, std::size_t threads) {
    omp_set_num_threads(static_cast<int>(threads));
    prepared& p = prepare(tokens, threads);
    const std::vector<float> steps = load_tokens(tokens);
    const memory src{p.matmul.src_desc(), engine_, x_.data()};
    const memory dst{p.matmul.dst_desc(), engine_, in_.io.y.data()};
    dnnl::matmul{p.matmul}.execute(
        stream_,
        {{DNNL_ARG_SRC, src}, {DNNL_ARG_WEIGHTS, p.weights->matrices[p.weights->turn.next()]}, {DNNL_ARG_DST, dst}});
    stream_.wait();
    for (std::size_t m = 0; m < steps.size(); ++m)
      for (float& y : in_.io.y.row(m)) y *= steps[m];
  }

private:
  /// All matrices in one layout.
  struct placed {
    std::vector<memory> matrices;
    rotation turn;
  };
  struct prepared {
    dnnl::matmul::primitive_desc matmul;
    placed* weights;
  };

  /// Weights [N x K]: floats, or bytes with a step for each row.
  void store(const float* from, std::size_t size, std::byte* to) {
    if (type_ == memory::data_type::s8)
      for (std::size_t i = 0; i < in_.weights.rows; ++i)
        row_steps_.push_back(to_bytes({from + i * in_.weights.cols, in_.weights.cols},
                                      reinterpret_cast<std::int8_t*>(to) + i * in_.weights.cols));
    else
      sinq::store_floats({from, size}, dtype(), reinterpret_cast<sinq::byte*>(to));
  }

  /// Tokens in the weights' type, a part of the work as it is of ours. @return steps of bytes; none of floats
  std::vector<float> load_tokens(std::size_t tokens) {
    const std::size_t cols = in_.io.x.cols();
    std::vector<float> steps;
    if (type_ == memory::data_type::s8)
      for (std::size_t m = 0; m < tokens; ++m)
        steps.push_back(to_bytes(in_.io.x.row(m), reinterpret_cast<std::int8_t*>(x_.data()) + m * cols));
    else
      sinq::store_floats({in_.io.x.data(), tokens * cols}, dtype(), reinterpret_cast<sinq::byte*>(x_.data()));
    return steps;
  }

  [[nodiscard]] sinq::dtype dtype() const {
    return type_ == memory::data_type::bf16 ? sinq::dtype::bf16 : sinq::dtype::f32;
  }

  prepared& prepare(std::size_t tokens, std::size_t threads) {
    const auto found = prepared_.find({tokens, threads});
    if (found != prepared_.end()) return found->second;
    const auto m = static_cast<memory::dim>(tokens);
    const auto n = static_cast<memory::dim>(in_.weights.rows);
    const auto k = static_cast<memory::dim>(in_.weights.cols);
    dnnl::primitive_attr attributes;
    if (!row_steps_.empty()) attributes.set_output_scales(1 << 1, row_steps_);
    const dnnl::matmul::desc wanted{{{m, k}, type_, memory::format_tag::ab},
                                    {{k, n}, type_, memory::format_tag::any},
                                    {{m, n}, memory::data_type::f32, memory::format_tag::ab}};
    const dnnl::matmul::primitive_desc chosen{wanted, attributes, engine_};
    return prepared_.emplace(std::pair{tokens, threads}, prepared{chosen, &weights_in(chosen.weights_desc())})
        .first->second;
  }

  placed& weights_in(const memory::desc& layout) {
    for (placed& known : weights_)
      if (known.matrices.front().get_desc() == layout) return known;
    const auto n = static_cast<memory::dim>(in_.weights.rows);
    const auto k = static_cast<memory::dim>(in_.weights.cols);
    memory plain{{{k, n}, type_, memory::format_tag::ba}, engine_, plain_.data()};
    const std::size_t bytes = layout.get_size();
    const std::size_t count = matrices_in(in_.weights.memory.span().size(), bytes);
    placed& made = weights_.emplace_back(placed{{}, rotation{count}});
    for (std::size_t copy = 0; copy < count; ++copy) {
      const huge_memory& house = houses_.emplace_back(bytes);
      made.matrices.emplace_back(layout, engine_, house.span().data());
      dnnl::reorder{plain, made.matrices.back()}.execute(stream_, plain, made.matrices.back());
      stream_.wait();
    }
    return made;
  }

  peer_input in_;
  memory::data_type type_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::vector<std::byte> plain_, x_;
  std::vector<float> row_steps_;
  std::deque<huge_memory> houses_;
  std::deque<placed> weights_; ///< one for each layout
  std::map<std::pair<std::size_t, std::size_t>, prepared> prepared_;
};

} // namespace

void add_onednn(const peer_input& in, std::vector<contender>& to) {
  struct variant {
    const char* name;
    memory::data_type type;
    arithmetic kind;
    double worst_error;
  };
  for (const variant& v : {variant{"f32", memory::data_type::f32, arithmetic::f32, 1e-4},
                           variant{"bf16", memory::data_type::bf16, arithmetic::bf16, 0.03},
                           variant{"int8 per row", memory::data_type::s8, arithmetic::int8, 0.15}}) {
    const auto multiply = std::make_shared<onednn_matmul>(in, v.type);
    to.push_back({.name = "oneDNN",
                  .weights = v.name,
                  .weight_bytes = multiply->weight_bytes(),
                  .kind = v.kind,
                  .worst_error = v.worst_error,
                  .expected = in.expected,
                  .multiply = [multiply](std::size_t tokens, std::size_t threads) { (*multiply)(tokens, threads); }});
  }
}

} // namespace sinq_bench

#endif
