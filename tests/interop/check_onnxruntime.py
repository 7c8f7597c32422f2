"""onnxruntime: our image models answer alike there, in floats and in 8 bits; onnx's checker takes the files."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np

NAME = "onnxruntime"
CHECKER = "onnx.checker"
# Of probabilities: both sides compute in f32 and differ by the order of sums.
PROBABILITY_TOLERANCE = 1e-4
ACCURACY_TOLERANCE_POINTS = 0.5
TARGET, EDGE_TARGET = "mobile", "gpu-high"


@dataclass
class Trained:
    """A network with its test pictures, and our own runtime's answers to them."""

    name: str
    pixels: np.ndarray
    labels: np.ndarray
    files: list
    probabilities: np.ndarray
    packages: dict


def check(table, ours, texts, models):
    """A CNN on gray pictures and ResNet-20 on colored ones."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401

        import pictures
    except ImportError as error:
        table.not_checked(NAME, str(error))
        return
    gray, color = pictures.Pictures(1, 1, 28), pictures.Pictures(2, 3, 32)
    makers = {
        "mnist-cnn": lambda: train(
            ours, "mnist-cnn", gray, gray.write_idx(ours.work / "gray"), ["--steps", 120, "--batch-size", 64]
        ),
        "resnet-20": lambda: train(
            ours, "cifar-resnet20", color, color.write_cifar(ours.work / "color"), ["--steps", 100, "--batch-size", 32]
        ),
    }
    for name, make in makers.items():
        try:
            compare(table, make())
        except Exception as error:  # noqa: BLE001: one bad file must not hide the others
            table.failed(NAME, name, "all", "exports, loads and answers", error)


def train(ours, preset, pictures, data, settings):
    """Trains the preset, exports it as ONNX in both types, and asks our own runtime about the test pictures."""
    run = ours.train(*("--preset", preset, "--data", data, "--tier", "vanilla", "--name", preset), *settings)
    folder = ours.work / "packages"
    packages = {
        scheme: ours.export(run, TARGET, scheme, folder / f"{preset}-{scheme}-onnx", "onnx") for scheme in ("f32", "int8")
    }
    edge = ours.export(run, EDGE_TARGET, "f32", folder / f"{preset}-edge", "safetensors")
    files = pictures.write_test_files(ours.work / "pictures" / preset)
    answers = ours.call(ours.foretrain, "infer", "--package", edge, "--image", *files)["images"]
    probabilities = np.array([[share for _, share in answer["classes"]] for answer in answers])
    pixels, labels = pictures.test
    return Trained(preset, pixels, labels, files, probabilities, packages)


def compare(table, model):
    """Both files of one network."""
    import onnx

    for scheme, package in model.packages.items():
        path = str(package / "model.onnx")
        try:
            onnx.checker.check_model(path, full_check=True)
            loaded = onnx.load(path)
            versions = f"opset {loaded.opset_import[0].version}, IR {loaded.ir_version}, {len(loaded.graph.node)} nodes"
            table.equal(CHECKER, model.name, scheme, "takes the file", True, versions)
        except Exception as error:  # noqa: BLE001
            table.failed(CHECKER, model.name, scheme, "takes the file", error)
    floats, integers = (answers(model, scheme) for scheme in ("f32", "int8"))
    ours = model.probabilities.argmax(axis=1)
    count = len(ours)
    other = int((floats.argmax(axis=1) != ours).sum())
    table.within(NAME, model.name, "f32", f"other top-1 of {count} pictures", other, 0)
    distance = float(np.abs(softmax(floats) - model.probabilities).max())
    table.within(NAME, model.name, "f32", "probabilities", distance, PROBABILITY_TOLERANCE, "against foretrain-edge")
    before, after = (float((logits.argmax(axis=1) == model.labels).mean()) for logits in (floats, integers))
    changed = int((integers.argmax(axis=1) != floats.argmax(axis=1)).sum())
    note = f"accuracy {before:.1%} as f32, {after:.1%} as int8; {changed} of {count} answers differ"
    table.within(NAME, model.name, "int8", "accuracy lost, points", (before - after) * 100, ACCURACY_TOLERANCE_POINTS, note)
    one_by_one = np.concatenate([answers(model, "f32", slice(i, i + 1)) for i in range(8)])
    distance = float(np.abs(one_by_one - floats[:8]).max())
    table.within(NAME, model.name, "f32", "logits alone and in a batch", distance, PROBABILITY_TOLERANCE)
    kernels = fused(model.packages["int8"])
    integer = {name: number for name, number in kernels.items() if name in ("QLinearConv", "QGemm")}
    left = sum(number for name, number in kernels.items() if name in ("Conv", "Gemm", "FusedConv"))
    note = ", ".join(f"{number} {name}" for name, number in sorted(integer.items()))
    table.within(NAME, model.name, "int8", "layers left in floats", left if integer else np.nan, 0, note)
    own_script(table, model)


def answers(model, scheme, part=slice(None)):
    """Logits of test pictures: pixels divided by 255, nothing else."""
    import onnxruntime

    path = str(model.packages[scheme] / "model.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = model.pixels[part].astype(np.float32) / np.float32(255)
    return session.run(["logits"], {"images": images})[0]


def fused(package):
    """How many nodes of each kind onnxruntime runs in the end."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(package.parent / f"{package.name}-optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(package / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def own_script(table, model):
    """The script in the package names the class that our runtime names."""
    package = model.packages["f32"]
    names = json.loads((package / "manifest.json").read_text(encoding="utf-8"))["provenance"]["preprocessing"]
    classes = names["Images"]["classes"]
    command = [sys.executable, str(package / "run.py"), *map(str, model.files[:20])]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()
    found = [line.removeprefix(f"{path}: ").rpartition(" (")[0] for line, path in zip(lines, model.files)]
    expected = [classes[number] for number in model.probabilities[:20].argmax(axis=1)]
    table.equal(NAME, model.name, "f32", "run.py names 20 classes", found == expected)


def softmax(logits):
    """Probabilities of each row."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
