"""Training steps in PyTorch, for a comparison of speed: requests and answers are lines of JSON.

Networks are written as functions of named tensors, under the names that transformers gives them, so that weights
arrive as they are. One argument: the number of threads.
"""

import json
import struct
import sys
import time


def answer(**line):
    print(json.dumps(line), flush=True)


try:
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(int(sys.argv[1]))
except Exception as error:
    answer(failed=f"torch cannot be imported: {error}")
    sys.exit(1)

TYPES = {"F32": torch.float32, "I64": torch.int64}


def read_safetensors(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = bytearray(file.read())
    header.pop("__metadata__", None)
    tensors = {}
    for name, about in header.items():
        begin, end = about["data_offsets"]
        flat = torch.frombuffer(data, dtype=torch.uint8)[begin:end].view(TYPES[about["dtype"]])
        tensors[name] = flat.reshape(about["shape"]).clone()
    return tensors


def gpt2(config, w, ids):
    batch, tokens = ids.shape
    width, heads, eps = config["n_embd"], config["n_head"], config["layer_norm_epsilon"]
    norm = lambda x, name: F.layer_norm(x, (width,), w[name + ".weight"], w[name + ".bias"], eps)
    affine = lambda x, name: torch.addmm(w[name + ".bias"], x.reshape(-1, x.shape[-1]), w[name + ".weight"])
    split = lambda x: x.view(batch, tokens, heads, width // heads).transpose(1, 2)
    x = F.embedding(ids, w["transformer.wte.weight"]) + w["transformer.wpe.weight"][:tokens]
    for layer in range(config["n_layer"]):
        name = f"transformer.h.{layer}"
        qkv = affine(norm(x, name + ".ln_1"), name + ".attn.c_attn")
        query, key, value = (split(part) for part in qkv.split(width, dim=1))
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + affine(seen.transpose(1, 2).reshape(-1, width), name + ".attn.c_proj").view_as(x)
        inner = F.gelu(affine(norm(x, name + ".ln_2"), name + ".mlp.c_fc"), approximate="tanh")
        x = x + affine(inner, name + ".mlp.c_proj").view_as(x)
    return F.linear(norm(x, "transformer.ln_f"), w["transformer.wte.weight"])


def cnn(config, w, x):
    for layer in range(len(config["channels"])):
        x = F.max_pool2d(F.relu(F.conv2d(x, w[f"conv.{layer}.weight"], w[f"conv.{layer}.bias"], padding=1)), 2)
    x = F.relu(F.linear(x.flatten(1), w["fc.weight"], w["fc.bias"]))
    return F.linear(x, w["classifier.weight"], w["classifier.bias"])


def resnet(config, w, x):
    def conv_norm(x, name, stride):
        kernel = w[name + ".convolution.weight"]
        y = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[2] // 2)
        mean, var, weight, bias = (w[f"{name}.normalization.{part}"] for part in ("mean", "var", "weight", "bias"))
        return F.batch_norm(y, mean, var, weight, bias, training=True, momentum=0.1, eps=1e-5)

    x = F.relu(conv_norm(x, "resnet.embedder.embedder", 1))
    for stage, depth in enumerate(config["depths"]):
        for layer in range(depth):
            name = f"resnet.encoder.stages.{stage}.layers.{layer}"
            stride = 2 if stage > 0 and layer == 0 else 1
            y = F.relu(conv_norm(x, name + ".layer.0", stride))
            y = conv_norm(y, name + ".layer.1", 1)
            if name + ".shortcut.convolution.weight" in w:
                x = conv_norm(x, name + ".shortcut", stride)
            x = F.relu(y + x)
    return F.linear(x.mean((2, 3)), w["classifier.1.weight"], w["classifier.1.bias"])


NETWORKS = {"Gpt2": gpt2, "Cnn": cnn, "ResNet": resnet}


class Model:
    def __init__(self, variant, config, file):
        (kind, config), = config.items()
        tensors = read_safetensors(file)
        self.inputs, self.targets = tensors.pop("inputs"), tensors.pop("targets")
        weights = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
        self.weights = list(weights.values())
        for name in [name for name in weights if name.endswith("normalization.weight")]:
            # Running statistics are kept, as a training step must.
            channels = len(weights[name])
            weights[name.removesuffix("weight") + "mean"] = torch.zeros(channels)
            weights[name.removesuffix("weight") + "var"] = torch.ones(channels)
        network, bf16 = NETWORKS[kind], variant.endswith("bf16")

        def loss(inputs, targets):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                logits = network(config, weights, inputs)
            return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten())

        self.loss = torch.compile(loss) if variant.startswith("compile") else loss
        # Fused is the fastest that PyTorch has for the processor. Ours spares vectors from weight decay, this does not.
        self.optimizer = torch.optim.AdamW(
            self.weights, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=True
        )

    def step(self):
        loss = self.loss(self.inputs, self.targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        return loss.item()


def turn(model, seconds):
    began, processor, step_ms = time.perf_counter(), time.process_time(), []
    while len(step_ms) < 2 or time.perf_counter() - began < seconds:
        step = time.perf_counter()
        model.step()
        step_ms.append((time.perf_counter() - step) * 1e3)
    return step_ms, (time.process_time() - processor) * 1e3 / len(step_ms)


models = {}
answer(ready={"version": torch.__version__})
for line in sys.stdin:
    request = json.loads(line)
    try:
        if request["do"] == "prepare":
            model = Model(request["variant"], request["config"], request["file"])
            loss = model.step()
            model.step()
            models[request["variant"]] = model
            answer(prepared={"loss": loss})
        elif request["do"] == "turn":
            step_ms, processor_ms = turn(models[request["variant"]], request["seconds"])
            answer(turned={"step_ms": step_ms, "processor_ms": processor_ms})
        else:
            models.clear()
            answer(**{"released": None})
    except Exception as error:
        answer(failed=f"{type(error).__name__}: {error}".splitlines()[0])
