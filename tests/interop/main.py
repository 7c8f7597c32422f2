"""Makes the models, runs the checks, prints the table."""

import argparse
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import check_gguf_py
import check_llama_cpp
import check_onnxruntime
import check_transformers
import models
from ours import Ours
from table import FAILED, NOT_CHECKED, Table

# A runtime is a module with NAME and check(table, ours, texts, models); a line here adds it.
CHECKS = [check_onnxruntime, check_gguf_py, check_llama_cpp, check_transformers]
ROOT = Path(__file__).resolve().parents[2]
# Compiling for the sake of a few hundred tokens takes longer than computing them; nothing is fetched.
os.environ.update(TORCHDYNAMO_DISABLE="1", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binaries", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--without-transformers", action="store_true")
    parser.add_argument("--only", default=",".join(check.NAME for check in CHECKS))
    return parser.parse_args()


def main():
    """The exit code: 1 when anything failed, or, if strict, was not checked."""
    asked = arguments()
    shutil.rmtree(asked.work, ignore_errors=True)
    asked.work.mkdir(parents=True)
    ours = Ours(asked.binaries, asked.work)
    table = Table()
    texts = models.Texts(ROOT, ours.work)
    names = set(asked.only.split(","))
    if asked.without_transformers:
        names.discard(check_transformers.NAME)
    # Image models are made by their own check.
    made = language_models(ours, texts, table, asked) if names - {check_onnxruntime.NAME} else []
    for check in CHECKS:
        if check.NAME in names:
            check.check(table, ours, texts, made)
    table.print()
    if asked.json:
        table.write_json(asked.json)
    failed, unchecked = table.verdicts(FAILED), table.verdicts(NOT_CHECKED)
    print(f"\n{len(table.rows)} rows: {len(failed)} failed, {len(unchecked)} not checked")
    for row in unchecked:
        print(f"!! NOT CHECKED: {row.runtime}: {row.note}", file=sys.stderr)
    return 1 if failed or (asked.strict and unchecked) else 0


def language_models(ours, texts, table, asked):
    """Those that can be made here."""
    is_installed = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "accelerate"))
    if not is_installed and not asked.without_transformers:
        table.not_checked("models that transformers wrote", "torch, transformers or accelerate is not installed")
    return models.make(ours, texts, is_installed and not asked.without_transformers)


if __name__ == "__main__":
    sys.exit(main())
