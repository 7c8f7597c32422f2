"""gguf-py: reads every file, its quantizers give our bytes for the same numbers, and both mean the same numbers by them."""

import ctypes
from pathlib import Path

import numpy as np

from models import GGUF_TARGET, type_name

NAME = "gguf-py"
REFERENCE = "ggml-quants.c"
# Floats to these at once; the ternary types from what they hold already.
FROM_FLOATS, FROM_TRITS = ["Q8_0", "Q4_0"], ["TQ2_0", "TQ1_0"]
# gguf-py reads these, but has no quantizers for them; bytes of a block.
BY_GGML_ALONE = {"Q4_K": 144, "Q3_K": 110}


def check(table, ours, texts, models):
    """Types and shapes of every tensor, then blocks."""
    try:
        import gguf
    except ImportError as error:
        table.not_checked(NAME, str(error))
        return
    reference, reason = reference_quantizers()
    if reference is None:
        table.not_checked(REFERENCE, reason)
    for model in models:
        try:
            floats = {tensor.name: tensor for tensor in gguf.GGUFReader(model.gguf["f32"] / "model.gguf").tensors}
            for scheme, package in model.gguf.items():
                compare(table, gguf, reference, model, scheme, package, floats)
                if scheme in model.table_types:
                    read_back(table, gguf, ours, texts, model, scheme, package)
        except Exception as error:  # noqa: BLE001
            table.failed(NAME, model.name, "all", "reads", error)


def compare(table, gguf, reference, model, scheme, package, floats):
    """One file against the same weights in F32."""
    kind = type_name(scheme)
    tensors = gguf.GGUFReader(package / "model.gguf").tensors
    is_same = {t.name: list(t.shape) for t in tensors} == {name: list(t.shape) for name, t in floats.items()}
    table.equal(NAME, model.name, kind, "names and shapes", is_same, f"{len(tensors)} tensors")
    counts = {"by gguf-py": [0, 0], "by ggml": [0, 0]}
    for tensor in tensors:
        name = tensor.tensor_type.name
        stored = np.array(tensor.data).view(np.uint8).reshape(-1)
        original = np.array(floats[tensor.name].data, dtype=np.float32)
        if name in FROM_FLOATS:
            source = original
        elif name in FROM_TRITS:
            source = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        elif name in BY_GGML_ALONE:
            if reference is not None:
                count(counts["by ggml"], reference[name](original), stored, BY_GGML_ALONE[name])
            continue
        else:
            continue
        block = gguf.constants.GGML_QUANT_SIZES[tensor.tensor_type][1]
        count(counts["by gguf-py"], gguf.quants.quantize(source, tensor.tensor_type).reshape(-1), stored, block)
        if reference is not None:
            count(counts["by ggml"], reference[name](source), stored, block)
    for who, (different, all_blocks) in counts.items():
        if all_blocks:
            runtime = NAME if who == "by gguf-py" else REFERENCE
            table.within(runtime, model.name, kind, "other blocks", different, 0, f"of {all_blocks}")


def read_back(table, gguf, ours, texts, model, scheme, package):
    """The numbers that we read in a file, which we write as floats, against those that gguf-py reads there."""
    floats = ours.work / "packages" / f"{package.name}-as-f32"
    ours.export(package / "model.gguf", GGUF_TARGET, "f32", floats, "gguf", data=texts.train)
    ours_read = {tensor.name: tensor for tensor in gguf.GGUFReader(floats / "model.gguf").tensors}
    different, total, types = 0, 0, set()
    for tensor in gguf.GGUFReader(package / "model.gguf").tensors:
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(-1)
        found = np.array(ours_read[tensor.name].data, dtype=np.float32).reshape(-1)
        # Zeros have two signs, which mean the same.
        different += int((expected + 0.0 != found + 0.0).sum())
        total += len(expected)
        types.add(tensor.tensor_type.name)
    note = f"of {total} in {', '.join(sorted(types))}"
    table.within(NAME, model.name, type_name(scheme), "other numbers read", different, 0, note)


def count(totals, theirs, stored, block_bytes):
    """Adds how many blocks differ, and how many there are."""
    theirs, stored = (np.asarray(a, dtype=np.uint8).reshape(-1, block_bytes) for a in (theirs, stored))
    totals[0] += int((theirs != stored).any(axis=1).sum())
    totals[1] += len(stored)


def reference_quantizers():
    """llama.cpp's own `quantize_row_…_ref` by type, out of the library that an installed package brings."""
    library, reason = base_library()
    if library is None:
        return None, reason
    sizes = {"Q8_0": (32, 34), "Q4_0": (32, 18), "Q4_K": (256, 144), "Q3_K": (256, 110), "TQ1_0": (256, 54), "TQ2_0": (256, 66)}

    def quantizer(name, block_len, block_bytes):
        function = getattr(library, f"quantize_row_{name.lower().replace('_k', '_K')}_ref")
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        function.restype = None

        def quantize(values):
            values = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
            out = np.zeros(len(values) // block_len * block_bytes, dtype=np.uint8)
            function(values.ctypes.data, out.ctypes.data, len(values))
            return out

        return quantize

    return {name: quantizer(name, *size) for name, size in sizes.items()}, None


def base_library():
    """The part of llama.cpp that quantizes."""
    for package, pattern in (("llama_cpp", "libggml-base.*"), ("xllamacpp", "xllamacpp*.so")):
        try:
            module = __import__(package)
        except (ImportError, OSError):
            continue
        for path in sorted(Path(module.__file__).parent.rglob(pattern)):
            try:
                return ctypes.CDLL(str(path)), None
            except OSError:
                continue
    return None, "no library of llama.cpp is installed"
