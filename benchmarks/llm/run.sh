#!/bin/sh
# What each way to quantize costs a language model; README.md says more. What was measured is not measured again.
#
#     sh benchmarks/llm/run.sh MODEL_DIR --calibration FILE --text FILE [--only REGEX] [--out DIR] [OPTION...]
#
# What was found is kept in DIR, which is build/llm of the repository without --out.
#
# ggml's types need the packages gguf and llama-cpp-python, which are installed into $SINQ_HF_VENV or
# ~/.cache/sinq-hf-venv, the environment of cmake/check_hf.sh; the second is compiled, which takes minutes.
set -eu
started_in=$PWD
# shellcheck source=cmake/setup.sh
. "$(dirname -- "$0")/../../cmake/setup.sh"
cd .. # that went one folder up
root=$PWD

venv=${SINQ_HF_VENV:-${HOME:-/tmp}/.cache/sinq-hf-venv}
(need python3-venv gnuplot-nox)
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"

need_to_build
need_llama "$venv" >&2 || echo "llama.cpp cannot be installed: ggml's types will be left out" >&2
build release --target sinq_cli >&2
cd "$started_in"
venv_python "$venv" "$root/benchmarks/llm/table.py" --tool "$root/build/release/bin/sinq" --out "$root/build/llm" "$@"
