"""Our own programs: the command line and the runtime."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np


class Ours:
    """Calls the binaries below `binaries`."""

    def __init__(self, binaries, work):
        self.foretrain = Path(binaries).resolve() / "foretrain"
        self.edge = Path(binaries).resolve() / "foretrain-edge"
        self.work = Path(work).resolve()

    def call(self, program, *arguments):
        """The JSON object that a command prints last."""
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.work / "cache")}
        command = [str(program), *map(str, arguments), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.work)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-600:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    def train(self, *arguments):
        """Trains; the run's folder."""
        return Path(self.call(self.foretrain, "train", "--runs", self.work / "runs", *arguments)["run"])

    def export(self, run, target, scheme, output, container, data=None, options=()):
        """Writes a package."""
        arguments = ["--input", run, "--target", target, "--scheme", scheme, "--output", output, "--format", container]
        if data is not None:
            arguments += ["--data", data]
        arguments += options
        self.call(self.foretrain, "export", *arguments)
        return Path(output)

    def tokens_of(self, package, text_file, count):
        """Tokens of the text's start, and the logits after each (tokens, vocabulary), f32."""
        answer = self.call(
            self.edge, "perplexity", "--package", package, "--text", text_file, "--max-tokens", count, "--logits"
        )
        return answer["tokens"], np.array(answer["logits"], dtype=np.float32)


def perplexity(tokens, logits):
    """exp of the mean loss of `tokens[1:]` by the logits after the tokens before them."""
    rows = np.asarray(logits[: len(tokens) - 1], dtype=np.float64)
    rows = rows - rows.max(axis=1, keepdims=True)
    normalizers = np.log(np.exp(rows).sum(axis=1))
    chosen = rows[np.arange(len(rows)), np.asarray(tokens[1:])]
    return float(np.exp((normalizers - chosen).mean()))
