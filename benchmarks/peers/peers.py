"""Times other libraries' products of tokens and 4-bit weights beside ours, in the same rounds. Run it by run.sh.

Each round runs every peer with every number of tokens, then sinq_bench_matmul for one round of its own; ratios are
taken within rounds. Peers multiply by copies of one weight in turns, as our program does.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy

import ggml

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "measure"))
from one_round import listed, one_round  # noqa: E402

GROUP = 64
WRONG = {"exact": 1e-3, "int8": 0.05, "bf16": 0.05, "own grid": 0.25}  # relative errors beyond which nothing is timed


def quantized(rows, cols, random):
    """Codes, scales and zero points of random weights, and the weights that they stand for."""
    codes = random.integers(0, 16, (rows, cols), dtype=numpy.uint8)
    scale = random.uniform(0.001, 0.004, (rows, cols // GROUP)).astype(numpy.float32)
    zero = random.integers(4, 12, (rows, cols // GROUP), dtype=numpy.uint8)
    values = (codes - numpy.repeat(zero, GROUP, 1).astype(numpy.float32)) * numpy.repeat(scale, GROUP, 1)
    return codes, scale, zero, values.astype(numpy.float32)


def pairs(codes):
    """Two codes a byte, the first one low."""
    return codes[..., 0::2] | codes[..., 1::2] << 4


class OnnxRuntime:
    def __init__(self, arguments, weight, x, accuracy_level):
        import onnx
        import onnxruntime
        from onnx import TensorProto, helper

        codes, scale, zero, _ = weight
        rows, cols = codes.shape
        blocks = cols // GROUP
        padded = numpy.pad(zero, ((0, 0), (0, blocks % 2)))
        stored = {"w": pairs(codes).reshape(rows, blocks, GROUP // 2), "s": scale, "z": pairs(padded)}
        node = helper.make_node("MatMulNBits", ["x", *stored], ["y"], domain="com.microsoft", K=cols, N=rows, bits=4,
                                block_size=GROUP, accuracy_level=accuracy_level)
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            [node], "product", [value("x", TensorProto.FLOAT, ["m", cols])],
            [value("y", TensorProto.FLOAT, ["m", rows])],
            [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()])
        model = helper.make_model(graph, ir_version=10, opset_imports=[
            helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]).SerializeToString()
        self.weight_bytes = sum(array.nbytes for array in stored.values())
        options = onnxruntime.SessionOptions()
        options.use_per_session_threads = False
        self.sessions = [onnxruntime.InferenceSession(model, options)
                         for _ in range(max(1, -(-arguments.bytes // self.weight_bytes)))]
        self.x, self.turn = x, 0

    def __call__(self, tokens):
        self.turn = (self.turn + 1) % len(self.sessions)
        self.y = self.sessions[self.turn].run(None, {"x": self.x[:tokens]})[0]

    def output(self, tokens, rows):
        return self.y


class Torch:
    """multiply(x, matrix) for copies of what the weight is stored as."""

    def __init__(self, arguments, x, stored, multiply):
        size = sum(tensor.nbytes for tensor in stored)
        self.copies = [tuple(tensor.clone() for tensor in stored)
                       for _ in range(max(1, -(-arguments.bytes // size)))]
        self.x, self.multiply, self.turn, self.weight_bytes = x, multiply, 0, size

    def __call__(self, tokens):
        self.turn = (self.turn + 1) % len(self.copies)
        self.y = self.multiply(self.x[:tokens], *self.copies[self.turn])

    def output(self, tokens, rows):
        return self.y.float().numpy()


def torch_peers(arguments, weight, x):
    import torch

    torch.set_num_threads(arguments.threads[0])
    torch.set_grad_enabled(False)
    codes, scale, zero, values = weight
    floats, x = torch.from_numpy(values), torch.from_numpy(x)
    linear = torch.nn.functional.linear
    yield "torch linear f32", "exact", lambda: Torch(arguments, x, [floats], linear)
    yield "torch linear bf16", "bf16", lambda: Torch(arguments, x.bfloat16(), [floats.bfloat16()], linear)

    def int4():
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(torch.from_numpy(codes.astype(numpy.int32)), 2)
        s = torch.from_numpy(scale)
        offset = (8 - torch.from_numpy(zero).float()) * s
        pairs_of = torch.stack([s, offset], 2).transpose(0, 1).contiguous().bfloat16()
        return Torch(arguments, x.bfloat16(), [packed, pairs_of],
                     lambda a, w, sz: torch.ops.aten._weight_int4pack_mm_for_cpu(a, w, GROUP, sz))

    yield "torch int4 weight-only, bf16", "bf16", int4


def all_peers(arguments, weight, x):
    """Name, kind of error and how to make each peer that the environment has."""
    try:
        import onnxruntime

        onnxruntime.set_global_thread_pool_sizes(arguments.threads[0], 1)
        for level, kind in ((0, "exact"), (4, "int8")):
            yield (f"onnxruntime MatMulNBits, accuracy {level}", kind,
                   lambda level=level: OnnxRuntime(arguments, weight, x, level))
    except ImportError as why:
        print(f"without onnxruntime: {why}")
    try:
        yield from torch_peers(arguments, weight, x)
    except ImportError as why:
        print(f"without torch: {why}")
    lib = ggml.load()
    if lib is None:
        print("without ggml: see --ggml")
        return
    for kind, repacked in (("q4_0", False), ("q4_0", True), ("q4_K", False), ("q4_K", True)):
        yield (f"ggml {kind}{' repacked' if repacked else ''}", "own grid",
               lambda kind=kind, repacked=repacked: ggml.Products(
                   lib, kind, weight[3], x, arguments.tokens, arguments.bytes, arguments.threads[0], repacked))


def made_peers(arguments, weight, x):
    """Peers that can be made and multiply correctly."""
    expected = x.astype(numpy.float64) @ weight[3].T[:, :64].astype(numpy.float64)
    for name, kind, make in all_peers(arguments, weight, x):
        try:
            peer, errors = make(), {}
            for tokens in arguments.tokens:
                peer(tokens)
                wrong = peer.output(tokens, len(weight[3]))[:, :64] - expected[:tokens]
                errors[tokens] = numpy.linalg.norm(wrong) / numpy.linalg.norm(expected[:tokens])
            if not max(errors.values()) <= WRONG[kind]:
                raise RuntimeError(f"relative error {max(errors.values()):.3g}")
            yield name, peer, errors
        except (RuntimeError, AttributeError, NotImplementedError) as why:
            print(f"without {name}: {str(why).splitlines()[0]}")


def seconds_of(peer, tokens, least):
    """Mean of calls that fill a turn, after one that is not counted."""
    time.sleep(0.005)
    peer(tokens)
    calls, begin = 0, time.perf_counter()
    while True:
        peer(tokens)
        calls += 1
        passed = time.perf_counter() - begin
        if passed >= least:
            return passed / calls


def our_round(arguments):
    """One round of our program: seconds by kernel and tokens, and bytes a second that are read at most."""
    found = one_round(arguments.bench, "--rows", arguments.rows, "--cols", arguments.cols, "--bytes", arguments.bytes,
                      "--tokens", listed(arguments.tokens), "--threads", listed(arguments.threads),
                      "--turn-ms", arguments.turn_ms)
    seconds = {(row["kernel"], row["tokens"]): row["seconds"]["median"] for row in found["products"]}
    errors = {(row["kernel"], row["tokens"]): row["error"] for row in found["products"]}
    return seconds, errors, found["limits"][0]["read_bytes_per_second"]["median"], found["machine"]


def run(arguments):
    random = numpy.random.default_rng(1)
    weight = quantized(arguments.rows, arguments.cols, random)
    x = random.standard_normal((max(arguments.tokens), arguments.cols), dtype=numpy.float32)
    peers = list(made_peers(arguments, weight, x))
    rounds, errors, reads, machine = [], {}, [], {}
    for name, _, found in peers:
        errors.update({(name, tokens): error for tokens, error in found.items()})
    for _ in range(arguments.rounds):
        seconds = {(name, tokens): seconds_of(peer, tokens, arguments.turn_ms / 1e3)
                   for name, peer, _ in peers for tokens in arguments.tokens}
        ours, our_errors, read, machine = our_round(arguments)
        rounds.append({**ours, **seconds})
        errors.update(our_errors)
        reads.append(read)
    report(arguments, rounds, errors, reads, machine)


def report(arguments, rounds, errors, reads, machine):
    print(f"{machine['date']}: {machine['processor']}, {machine['instructions']}; {arguments.rows} x {arguments.cols},"
          f" groups of {GROUP}, {arguments.threads[0]} threads, {arguments.rounds} rounds; "
          f"read {statistics.median(reads) / 1e9:.2f} GB/s")
    print(f"{'kernel':38} {'tokens':>6} {'us':>10} {'least..most':>22} {'of sinq int8':>12} {'of sinq exact':>13} "
          f"{'error':>8}")
    for tokens in arguments.tokens:
        for key in rounds[0]:
            if key[1] != tokens:
                continue
            us = [found[key] * 1e6 for found in rounds]
            ratios = [statistics.median(found[key] / found[(f"sinq {kind}", tokens)] for found in rounds)
                      for kind in ("int8", "exact")]
            ends = f"{min(us):.1f}..{max(us):.1f}"
            print(f"{key[0]:38} {tokens:6} {statistics.median(us):10.1f} {ends:>22} {ratios[0]:12.2f} {ratios[1]:13.2f} "
                  f"{errors[key]:8.1e}")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = lambda text: [int(number) for number in text.split(",")]
    parser.add_argument("--bench", default="build/release/bin/sinq_bench_matmul", help="our program")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--cols", type=int, default=4096, help=f"a multiple of {GROUP}; of 256 for q4_K")
    parser.add_argument("--tokens", type=numbers, default=[1, 4, 16, 64, 512], help="numbers of tokens")
    parser.add_argument("--threads", type=numbers, default=[1, os.cpu_count()], help="numbers of threads")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turn-ms", type=float, default=20, help="calls that are shorter are repeated for so long")
    parser.add_argument("--bytes", type=int, default=1 << 30, help="of weights, before any is read again")
    arguments = parser.parse_args()
    if len(arguments.threads) == 1:
        return run(arguments)
    for threads in arguments.threads:  # libraries take the number of their threads once for a process
        subprocess.run([sys.executable, *sys.argv, "--threads", str(threads)], check=True)


if __name__ == "__main__":
    main()
