#!/bin/sh
# Quantizes a tiny model into the official format at every width, refined and not, and loads it with transformers and the official sinq
# package: logits must be those of the same weights restored by `sinq dequantize`.
#
#     sh cmake/check_hf.sh [TOOL]         TOOL: the built sinq; without it, build/release/bin/sinq
#
# Python with the packages is looked for in $SINQ_HF_VENV, ~/.cache/sinq-hf-venv and /opt/venv, and else installed into
# the first of these that is named. Where that cannot be done, the check is skipped and says why.
set -eu
# shellcheck source=cmake/setup.sh
. "$(dirname -- "$0")/setup.sh"

tool=${1:-build/release/bin/sinq}
venv=${SINQ_HF_VENV:-${HOME:-/tmp}/.cache/sinq-hf-venv}

# usable PYTHON: it has all packages.
usable() {
  [ -x "$1" ] && "$1" -c '
import torch, safetensors
from transformers import SinqConfig
from sinq.hf_io import patch_hf_pretrained_io' >/dev/null 2>&1
}

# install: makes the environment; pip must reach an index.
install() {
  make_venv "$venv" || return 1
  $pip transformers safetensors accelerate datasets termcolor && $pip --no-deps sinq==0.2.0
}

python=
for candidate in "$venv/bin/python" /opt/venv/bin/python; do
  if usable "$candidate"; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  install_log=$(mktemp)
  if install >"$install_log" 2>&1 </dev/null && usable "$venv/bin/python"; then
    python=$venv/bin/python
  else
    reason=$(grep -iE 'error|could not|no module' "$install_log" | tail -n 1)
    echo "skipped in hf: no Python with torch, transformers and sinq 0.2.0, and none can be installed: ${reason:-see $venv}"
    rm -f "$install_log"
    exit 0
  fi
  rm -f "$install_log"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
"$python" tests/hf/make_model.py "$work/float" 2>"$work/log" || {
  cat "$work/log" >&2
  exit 1
}
for bits in 2 3 4 5 6; do
  for refine in none weights; do
    rm -rf "$work/official" "$work/plain"
    "$tool" quantize "$work/float" -o "$work/official" --format official --bits "$bits" --refine "$refine" --quiet
    "$tool" verify "$work/official" --against "$work/float" --quiet
    "$tool" dequantize "$work/official" -o "$work/plain" --dtype f32 --quiet
    "$python" tests/hf/compare_logits.py "$work/official" "$work/plain" 1e-3 >"$work/found" 2>"$work/log" || {
      cat "$work/log" "$work/found" >&2
      exit 1
    }
    printf '%s bits, refine %-7s %s\n' "$bits" "$refine" "$(tail -n 1 "$work/found")"
  done
done
