#!/bin/sh
# Times llama.cpp beside sinq_bench_engine, which it builds, on one model quantized by each, in the same rounds.
#
#     sh benchmarks/engine/run.sh MODEL_DIR [OPTION...]   a float model of type llama; options: see --help of llama.py
#     sh benchmarks/engine/run.sh random [OPTION...]      the same on 1.1 billion random weights, which it makes
#
# llama.cpp is compiled for this processor from the Python package llama-cpp-python, which takes minutes, unless it is
# there. Packages go into $SINQ_HF_VENV or ~/.cache/sinq-hf-venv, the environment of cmake/check_hf.sh.
set -eu
model=${1:?which model? see the head of this file}
shift
case $model in random | /*) ;; *) model=$PWD/$model ;; esac
# shellcheck source=cmake/setup.sh
. "$(dirname -- "$0")/../../cmake/setup.sh"
cd .. # that went one folder up

venv=${SINQ_HF_VENV:-${HOME:-/tmp}/.cache/sinq-hf-venv}
[ -x "$venv/bin/python" ] || make_venv "$venv"
need_to_build
need_llama "$venv"
build release --target sinq_cli sinq_bench_engine
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ "$model" = random ]; then
  model=$work/random
  venv_python "$venv" benchmarks/engine/make_random_model.py "$model"
fi
build/release/bin/sinq quantize "$model" -o "$work/quantized" --refine none --layout panels --quiet
venv_python "$venv" benchmarks/engine/llama.py "$model" "$work/quantized" "$@"
