"""Checks benchmarks/llm/ggml_model.py on a model: python llm_ggml_check.py LLM_DIR TOOL MODEL_DIR WORK_DIR"""
import json
import pathlib
import subprocess
import sys

import numpy

sys.path.insert(0, sys.argv[1])
import ggml_model  # noqa: E402

TOOL, MODEL, WORK = sys.argv[2], pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4])


def floats_of(path):
    return {name: ggml_model.to_floats(*tensor) for name, tensor in ggml_model.read_safetensors(path).items()}


def through(kind, plan, *moments):
    out, told = WORK / kind, WORK / f"{kind}.json"
    ggml_model.main(MODEL, out, kind, plan, told, *moments)
    return floats_of(out / "model.safetensors"), json.loads(told.read_text())["totals"]["bits_per_weight"]


def q4_0(weights):
    """The type as ggml describes it: 32 weights, an f16 step d = (the one of largest size) / -8, codes of 4 bits."""
    blocks = weights.reshape(-1, 32)
    largest = numpy.take_along_axis(blocks, numpy.abs(blocks).argmax(1, keepdims=True), 1)
    step = largest / numpy.float32(-8)
    inverse = numpy.divide(numpy.float32(1), step, out=numpy.zeros_like(step), where=step != 0)
    codes = numpy.minimum(15, numpy.floor(blocks * inverse + numpy.float32(8.5)))
    return ((codes - 8) * step.astype(numpy.float16).astype(numpy.float32)).reshape(weights.shape)


plan, moments = WORK / "plan.json", WORK / "moments.safetensors"
subprocess.run([TOOL, "quantize", MODEL, "--dry-run", "--quiet", "--json", plan], check=True)
subprocess.run([TOOL, "calibrate", MODEL, "-o", moments, "--random", "--tokens", "96", "--window", "24", "--quiet"],
               check=True)
quantized = [t["name"] for t in json.loads(plan.read_text())["tensors"] if t["quantized"]]
original, energies = floats_of(MODEL / "model.safetensors"), floats_of(moments)

restored, bits = through("Q4_0", plan)
assert bits == 4.5, bits
assert restored.keys() == original.keys()
for name, weights in original.items():
    expected = q4_0(weights) if name in quantized else weights
    assert numpy.array_equal(restored[name], expected), name

plain, bits = through("Q4_K", plan)
weighted, weighted_bits = through("Q4_K", plan, moments)
assert bits == weighted_bits == 4.5, (bits, weighted_bits)


def error(restored):
    """What is left of the outputs, of inputs that do not depend on each other."""
    total = 0
    for name in quantized:
        energy = energies[name.removesuffix(".weight") + ".second_moment"]
        total += float(((restored[name] - original[name]) ** 2 * energy).sum() / (original[name] ** 2 * energy).sum())
    return total / len(quantized)


# 4.5 bits leave about a thirteenth; rows laid end to end in the wrong order would leave more than all
assert error(plain) < 0.1**2, error(plain)
assert error(weighted) < error(plain), (error(weighted), error(plain))
