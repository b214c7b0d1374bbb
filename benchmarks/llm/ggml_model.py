"""Writes a model whose matrices went through one of ggml's types and back, as floats.

    python ggml_model.py MODEL_DIR OUT_DIR TYPE PLAN REPORT [MOMENTS]

PLAN: what `sinq quantize --dry-run --json` wrote: its quantized tensors are quantized here too. REPORT: takes bits per
weight, as JSON. MOMENTS: gives ggml its importance matrix, NAME.second_moment.

ggml_quantize_chunk of llama-cpp-python's library quantizes, the package gguf turns blocks back into floats. Where a
type's block is longer than divides a row, rows are laid end to end: 256 weights of a k-quant then span two rows.
"""
import ctypes
import importlib.util
import json
import math
import pathlib
import shutil
import struct
import sys

import gguf
import numpy

FLOAT_TYPES = {"F32": numpy.float32, "F16": numpy.float16, "BF16": numpy.uint16}


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}, mapped."""
    data = numpy.memmap(path, numpy.uint8, "r")
    head_bytes = struct.unpack("<Q", data[:8].tobytes())[0]
    head = json.loads(data[8:8 + head_bytes].tobytes())
    body = data[8 + head_bytes:]
    return {name: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])])
            for name, t in head.items() if name != "__metadata__"}


def to_floats(dtype, shape, data):
    values = numpy.frombuffer(data.tobytes(), FLOAT_TYPES[dtype])
    if dtype == "BF16":
        values = (values.astype(numpy.uint32) << 16).view(numpy.float32)
    return values.astype(numpy.float32).reshape(shape)


def write_safetensors(path, tensors):
    head, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, data) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            file.write(data)


def load_ggml():
    folder = pathlib.Path(importlib.util.find_spec("llama_cpp").submodule_search_locations[0])
    library = ctypes.CDLL(str(folder / "lib" / "libggml-base.so"))
    pointer = ctypes.c_void_p
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, ctypes.c_int64, ctypes.c_int64,
                                            ctypes.c_int64, pointer]
    return library


def through_ggml(library, kind, weights, importance):
    """The weights as their blocks stand for them, and the bytes of the blocks."""
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    row = math.lcm(block, weights.shape[1])
    if weights.size % row != 0:
        raise RuntimeError(f"{weights.shape} is not a whole number of blocks of {block}")
    blocks = numpy.zeros((weights.size // row, row // block * block_bytes), numpy.uint8)
    if importance is not None:
        importance = numpy.ascontiguousarray(numpy.tile(importance, row // weights.shape[1]))
    written = library.ggml_quantize_chunk(kind, weights.ctypes.data, blocks.ctypes.data, 0, *(weights.size // row, row),
                                          None if importance is None else importance.ctypes.data)
    if written != blocks.nbytes:
        raise RuntimeError(f"ggml wrote {written} bytes, expected {blocks.nbytes}")
    return gguf.quants.dequantize(blocks, kind).reshape(weights.shape), blocks.nbytes


def main(model, out, kind, plan, report, moments=None):
    model, out = pathlib.Path(model), pathlib.Path(out)
    kind = gguf.GGMLQuantizationType[kind]
    library = load_ggml()
    chosen = {t["name"] for t in json.loads(pathlib.Path(plan).read_text())["tensors"] if t["quantized"]}
    known = read_safetensors(moments) if moments else {}
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(model, out, ignore=shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json"))
    tensors, weights, stored = {}, 0, 0
    for path in sorted(model.glob("*.safetensors")):
        for name, (dtype, shape, data) in read_safetensors(path).items():
            if name not in chosen:
                tensors[name] = (dtype, shape, data)
                continue
            importance = to_floats(*known[name.removesuffix(".weight") + ".second_moment"]) if known else None
            restored, stored_bytes = through_ggml(library, kind, to_floats(dtype, shape, data), importance)
            tensors[name] = ("F32", shape, restored.astype(numpy.float32).tobytes())
            weights += restored.size
            stored += stored_bytes
    write_safetensors(out / "model.safetensors", tensors)
    pathlib.Path(report).write_text(json.dumps({"totals": {"bits_per_weight": 8 * stored / weights}}))


if __name__ == "__main__":
    main(*sys.argv[1:])
