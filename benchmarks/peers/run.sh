#!/bin/sh
# Times onnxruntime, PyTorch and ggml on 4-bit weights beside sinq_bench_matmul, which it builds, in the same rounds.
#
#     sh benchmarks/peers/run.sh [--ggml] [OPTION...]     options: sh benchmarks/peers/run.sh --help
#
# --ggml compiles ggml, the kernels of llama.cpp, for this processor from its Python package, which takes minutes, unless
# it is there. Packages go into $SINQ_HF_VENV or ~/.cache/sinq-hf-venv, the environment of cmake/check_hf.sh, which has
# PyTorch already.
set -eu
# shellcheck source=cmake/setup.sh
. "$(dirname -- "$0")/../../cmake/setup.sh"
cd .. # that went one folder up

venv=${SINQ_HF_VENV:-${HOME:-/tmp}/.cache/sinq-hf-venv}

{ [ -x "$venv/bin/python" ] && venv_has "$venv" torch; } || make_venv "$venv"
venv_has "$venv" onnxruntime onnx numpy || "$venv/bin/pip" install --quiet onnxruntime onnx numpy
if [ "${1:-}" = --ggml ]; then
  shift
  venv_has "$venv" libggml || install_ggml "$venv" libggml-python
fi

need_to_build
build release --target sinq_bench_matmul
# huge pages for what Python's libraries allocate, which our program asks for by itself
GLIBC_TUNABLES=glibc.malloc.hugetlb=1 exec "$venv/bin/python" benchmarks/peers/peers.py "$@"
