#!/bin/sh
# Times llama.cpp beside sinq_bench_engine, which it builds, on one model quantized by each, in the same rounds.
#
#     sh benchmarks/engine/run.sh MODEL_DIR [OPTION...]   a float model of type llama; options: see --help of llama.py
#     sh benchmarks/engine/run.sh random [OPTION...]      the same on 1.1 billion random weights, which it makes
#
# llama.cpp is compiled for this processor from the Python package llama-cpp-python, which takes minutes, unless it is
# there. Packages go into $SINQ_HF_VENV or ~/.cache/sinq-hf-venv, the environment of cmake/check_hf.sh.
set -eu
# shellcheck source=cmake/setup.sh
. "$(dirname -- "$0")/../../cmake/setup.sh"
cd .. # that went one folder up

venv=${SINQ_HF_VENV:-${HOME:-/tmp}/.cache/sinq-hf-venv}
model=${1:?which model? see the head of this file}
shift
[ -x "$venv/bin/python" ] || make_venv "$venv"
there() {
  "$venv/bin/python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)"
}
there gguf || "$venv/bin/pip" install --quiet gguf
# g++ 12 drops what llama.cpp writes into the configuration of AMX tiles, which then is an illegal instruction
there llama_cpp || CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DCMAKE_CXX_FLAGS=-fno-dse" \
  "$venv/bin/pip" install --no-binary llama-cpp-python llama-cpp-python

need_to_build
build release --target sinq_cli sinq_bench_engine
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ "$model" = random ]; then
  model=$work/random
  "$venv/bin/python" benchmarks/engine/make_random_model.py "$model"
fi
build/release/bin/sinq quantize "$model" -o "$work/quantized" --refine none --layout panels --quiet
"$venv/bin/python" benchmarks/engine/llama.py "$model" "$work/quantized" "$@"
