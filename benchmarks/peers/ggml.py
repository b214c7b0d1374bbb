"""Products by ggml, the kernels of llama.cpp, through its C interface in the package libggml-python."""
import ctypes
import importlib.util
import pathlib

import numpy

QUIET = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda level, text, data: None)
TYPES = {"f32": 0, "q4_0": 2, "q4_1": 3, "q4_K": 12}


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


def load():
    """The libraries, or None where the package is not installed."""
    spec = importlib.util.find_spec("libggml")
    if spec is None:
        return None
    found = sorted(pathlib.Path(spec.submodule_search_locations[0]).glob("lib*/libggml-base.so"))
    if not found:
        return None
    base = ctypes.CDLL(str(found[0]), ctypes.RTLD_GLOBAL)
    cpu = ctypes.CDLL(str(found[0].with_name("libggml-cpu.so")), ctypes.RTLD_GLOBAL)
    pointer = ctypes.c_void_p
    for library, name, result, arguments in [
        (base, "ggml_init", pointer, [InitParams]),
        (base, "ggml_new_tensor_2d", pointer, [pointer, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]),
        (base, "ggml_mul_mat", pointer, [pointer, pointer, pointer]),
        (base, "ggml_new_graph", pointer, [pointer]),
        (base, "ggml_build_forward_expand", None, [pointer, pointer]),
        (base, "ggml_nbytes", ctypes.c_size_t, [pointer]),
        (base, "ggml_quantize_chunk", ctypes.c_size_t,
         [ctypes.c_int, pointer, pointer, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, pointer]),
        (base, "ggml_backend_alloc_ctx_tensors_from_buft", pointer, [pointer, pointer]),
        (base, "ggml_backend_get_default_buffer_type", pointer, [pointer]),
        (base, "ggml_backend_tensor_set", None, [pointer, pointer, ctypes.c_size_t, ctypes.c_size_t]),
        (base, "ggml_backend_tensor_get", None, [pointer, pointer, ctypes.c_size_t, ctypes.c_size_t]),
        (base, "ggml_backend_graph_compute", ctypes.c_int, [pointer, pointer]),
        (base, "ggml_backend_reg_dev_get", pointer, [pointer, ctypes.c_size_t]),
        (base, "ggml_backend_reg_get_proc_address", pointer, [pointer, ctypes.c_char_p]),
        (cpu, "ggml_backend_cpu_init", pointer, []),
        (cpu, "ggml_backend_cpu_reg", pointer, []),
        (cpu, "ggml_backend_cpu_set_n_threads", None, [pointer, ctypes.c_int]),
    ]:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
        setattr(base, name, function)
    base.ggml_log_set(QUIET, None)
    return base


def repacked_layout(lib):
    """The kind of memory in which ggml puts the rows of a weight side by side, or None."""
    registry = lib.ggml_backend_cpu_reg()
    address = lib.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
    if not address:
        return None
    get = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)
    kinds = get(lib.ggml_backend_reg_dev_get(registry, 0))
    return kinds[0] if kinds else None


class Products:
    """x W^T for copies of one weight in turns."""

    def __init__(self, lib, kind, weights, x, token_counts, least_bytes, threads, repacked):
        self.lib, self.turn = lib, 0
        rows, cols = weights.shape
        self.backend = lib.ggml_backend_cpu_init()
        lib.ggml_backend_cpu_set_n_threads(self.backend, threads)
        plain = lib.ggml_backend_get_default_buffer_type(self.backend)
        layout = repacked_layout(lib) if repacked else plain
        if layout is None:
            raise RuntimeError("no repacked layout")
        stored = self.quantize(kind, weights)
        self.weight_bytes = stored.nbytes
        count = max(1, -(-least_bytes // stored.nbytes))
        holder = self.context(count + 1)
        matrices = [lib.ggml_new_tensor_2d(holder, TYPES[kind], cols, rows) for _ in range(count)]
        self.allocate(holder, layout)
        for matrix in matrices:
            lib.ggml_backend_tensor_set(matrix, stored.ctypes.data, 0, stored.nbytes)
        self.graphs, self.outputs = {}, {}
        for tokens in token_counts:
            self.add_graphs(matrices, x[:tokens], plain)

    def context(self, tensors):
        return self.lib.ggml_init(InitParams(tensors * 512 + (1 << 20), None, True))

    def allocate(self, context, layout):
        if not self.lib.ggml_backend_alloc_ctx_tensors_from_buft(context, layout):
            raise MemoryError("ggml cannot allocate")

    def quantize(self, kind, weights):
        rows, cols = weights.shape
        one = self.context(1)
        size = self.lib.ggml_nbytes(self.lib.ggml_new_tensor_2d(one, TYPES[kind], cols, rows))
        stored = numpy.empty(size, numpy.uint8)
        self.lib.ggml_quantize_chunk(TYPES[kind], weights.ctypes.data, stored.ctypes.data, 0, rows, cols, None)
        return stored

    def add_graphs(self, matrices, x, plain):
        """A graph of one product for each matrix; they share x and y."""
        lib, tokens = self.lib, len(x)
        graphs, outputs = [], []
        for matrix in matrices:
            context = self.context(300)
            activations = lib.ggml_new_tensor_2d(context, TYPES["f32"], x.shape[1], tokens)
            product = lib.ggml_mul_mat(context, matrix, activations)
            self.allocate(context, plain)
            lib.ggml_backend_tensor_set(activations, x.ctypes.data, 0, x.nbytes)
            graph = lib.ggml_new_graph(context)
            lib.ggml_build_forward_expand(graph, product)
            graphs.append(graph)
            outputs.append(product)
        self.graphs[tokens], self.outputs[tokens] = graphs, outputs

    def __call__(self, tokens):
        graphs = self.graphs[tokens]
        self.turn = (self.turn + 1) % len(graphs)
        if self.lib.ggml_backend_graph_compute(self.backend, graphs[self.turn]) != 0:
            raise RuntimeError("ggml failed")

    def output(self, tokens, rows):
        y = numpy.empty((tokens, rows), numpy.float32)
        self.lib.ggml_backend_tensor_get(self.outputs[tokens][self.turn], y.ctypes.data, 0, y.nbytes)
        return y
