#!/bin/sh
# Builds the tool and quantizes two real weight matrices with it. Needs nothing but Debian 12 and root or sudo: missing
# packages are installed.
set -eu
# shellcheck source=cmake/setup.sh
. "$(dirname -- "$0")/../cmake/setup.sh"

need_to_build
build release --target sinq_cli
sinq=build/release/bin/sinq
weights=examples/data/demo.safetensors
output=build/demo/demo.sinq.safetensors

for bits in 4 3; do
  echo
  echo "\$ $sinq compare $weights --bits $bits"
  "$sinq" compare "$weights" --bits "$bits"
done
echo
echo "\$ $sinq quantize $weights -o $output --method sinq --bits 4"
mkdir -p build/demo
rm -f "$output"
"$sinq" quantize "$weights" -o "$output" --method sinq --bits 4
echo
echo "The quantized weights are in $(pwd)/$output"
