"""Classifies pictures with the model beside this file. Needs: pip install onnxruntime numpy pillow"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

if len(sys.argv) < 2:
    sys.exit(f"usage: {sys.argv[0]} PICTURE.png ...")
missing = [path for path in sys.argv[1:] if not Path(path).is_file()]
if missing:
    sys.exit(f"no such picture: {', '.join(missing)}")
model = str(Path(__file__).with_name("model.onnx"))
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
_, channels, height, width = session.get_inputs()[0].shape
for path in sys.argv[1:]:
    picture = Image.open(path).convert("L" if channels == 1 else "RGB").resize((width, height), Image.BILINEAR)
    pixels = np.asarray(picture, dtype=np.float32).reshape(height, width, channels) / 255
    images = pixels.transpose(2, 0, 1)[np.newaxis]
    logits = session.run(["logits"], {"images": images})[0][0]
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    print(f"{path}: {classes[int(shares.argmax())]} ({shares.max():.1%})")
