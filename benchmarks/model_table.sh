#!/bin/sh
# What quantization costs a language model: quantizes MODEL_DIR in many ways, turns each back into floats, and hands all
# of them to a script that prints perplexity and KL divergence from MODEL_DIR.
#
#   sh benchmarks/model_table.sh SINQ MODEL_DIR MOMENTS_DIR WORK_DIR EVALUATE...
#
# SINQ: the tool. MOMENTS_DIR: random.safetensors, self.safetensors and text.safetensors as --moments takes them; the last
# two with hessians. WORK_DIR: takes the models, about 0.3 GB each for one of 135M weights. EVALUATE...: a command that is
# called with all the directories, such as: python perplexity.py MODEL_DIR TEXT 12
# ONLY=REGEX in the environment makes just the models whose names match.
set -eu
sinq=$1 model=$2 moments=$3 work=$4
shift 4
mkdir -p "$work"
made=""

# make NAME OPTION...
make() {
  name=$1
  shift
  printf '%s\n' "$name" | grep -Eq "${ONLY:-.}" || return 0
  if [ ! -e "$work/$name" ]; then
    "$sinq" quantize "$model" -o "$work/quantized" --quiet --json "$work/$name.json" "$@"
    "$sinq" dequantize "$work/quantized" -o "$work/$name" --quiet
    rm -rf "$work/quantized"
  fi
  made="$made $work/$name"
}

for bits in 4 3; do
  for method in rtn hqq "nf$bits" sinq "sinq_nf$bits" sinq_hqq; do
    make "$bits-$method" --bits $bits --method "$method" --refine none
  done
  make "$bits-official" --bits $bits --compat official
  make "$bits-weights" --bits $bits
  for kind in random self text; do
    make "$bits-$kind" --bits $bits --refine "$moments/$kind.safetensors" --no-feedback
  done
  make "$bits-gptq" --bits $bits --method gptq --moments "$moments/self.safetensors"
  make "$bits-self-feedback" --bits $bits --refine "$moments/self.safetensors"
  make "$bits-text-feedback" --bits $bits --refine "$moments/text.safetensors"
done
for preset in 4.25 4.5 3.5; do
  make "$preset-weights" --preset $preset
  make "$preset-self" --preset $preset --refine "$moments/self.safetensors" --no-feedback
  make "$preset-self-feedback" --preset $preset --refine "$moments/self.safetensors"
done
# shellcheck disable=SC2086 # the names have no spaces
"$@" $made
