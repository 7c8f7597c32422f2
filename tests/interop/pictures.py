"""Datasets of pictures from a seed, in the files of MNIST and CIFAR-10: a pattern per class under shifts and noise, so
that a small network learns most of it and not all."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

NUM_CLASSES, NUM_TRAIN, NUM_TEST = 10, 4_000, 1_000
# Share of noise: what keeps networks below 100%.
NOISE = 0.6


class Pictures:
    """Pixels (count, channels, height, width), 0 to 255, and classes, to learn from and to test on."""

    def __init__(self, seed, channels, side):
        random = np.random.default_rng(seed)
        coarse = random.uniform(-1, 1, (NUM_CLASSES, channels, 7, 7))
        patterns = np.repeat(np.repeat(coarse, side // 7 + 1, axis=2), side // 7 + 1, axis=3)[..., :side, :side]
        self.train = self.draw(random, patterns, NUM_TRAIN)
        self.test = self.draw(random, patterns, NUM_TEST)

    @staticmethod
    def draw(random, patterns, count):
        """Random members of the classes."""
        labels = random.integers(0, NUM_CLASSES, count)
        pictures = patterns[labels]
        shifts = random.integers(-3, 4, (count, 2))
        moved = np.stack([np.roll(one, tuple(shift), axis=(1, 2)) for one, shift in zip(pictures, shifts)])
        noisy = (1 - NOISE) * moved + NOISE * random.normal(0, 1, moved.shape)
        return np.clip(128 + 80 * noisy, 0, 255).astype(np.uint8), labels.astype(np.uint8)

    def write_idx(self, folder):
        """As MNIST's four files; gray."""
        folder.mkdir(parents=True)
        for part, (pixels, labels) in (("train", self.train), ("t10k", self.test)):
            _, _, height, width = pixels.shape
            header = struct.pack(">iiii", 0x803, len(pixels), height, width)
            (folder / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 0x801, len(labels)) + labels.tobytes())
        return folder

    def write_cifar(self, folder):
        """As CIFAR-10's binaries; red, green, blue."""
        folder.mkdir(parents=True)
        for name, (pixels, labels) in (("data_batch_1", self.train), ("test_batch", self.test)):
            records = np.concatenate([labels[:, None], pixels.reshape(len(pixels), -1)], axis=1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        return folder

    def write_test_files(self, folder):
        """The test pictures one by one, as PNG."""
        folder.mkdir(parents=True)
        paths = []
        for number, pixels in enumerate(self.test[0]):
            picture = Image.fromarray(pixels[0]) if len(pixels) == 1 else Image.fromarray(pixels.transpose(1, 2, 0))
            paths.append(Path(folder) / f"{number:04}.png")
            picture.save(paths[-1])
        return paths
