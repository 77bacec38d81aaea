"""Pre-processing: text becomes token ids."""

from pathlib import Path

import numpy as np

from shared.adapters.onnx.execution import decode_strings
from shared.domain.errors import InvalidPackage
from shared.domain.tensors import Array, Tensors
from shared.schemas.manifest import TokenizeStep


class TextTokenizer:
    """BYTES [batch] of UTF-8 text → INT64 [batch, tokens] for each graph input that the step names.

    `tokens` is the length of the longest text; the step's padding and truncation replace those that the file asks for.
    """

    def __init__(self, step: TokenizeStep, folder: Path) -> None:
        """Read the tokenizer's file; InvalidPackage if it is none, or if this process cannot run tokenizers."""
        try:
            # Only packages with text pay for this import.
            from tokenizers import Tokenizer
        except ModuleNotFoundError as error:
            raise InvalidPackage(
                f"The input {step.input!r} takes text, and the tokenizers are not part of the function's layers: set "
                '"placement": "container" in the manifest and publish it as the next version.'
            ) from error

        self._step = step
        try:
            self._tokenizer = Tokenizer.from_str((folder / step.tokenizer).read_text(encoding="utf-8"))
            padding = self._tokenizer.padding or {}
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(max_length=step.max_tokens)
            self._tokenizer.encode("")
        except Exception as error:  # the library raises bare Exception
            raise InvalidPackage(
                f"{step.tokenizer} cannot be used as the tokenizer of {step.input!r}: {error}"
            ) from error
        self._pad_id = int(padding.get("pad_id", 0))
        self._pad_type_id = int(padding.get("pad_type_id", 0))

    def __call__(self, texts: Array) -> Tensors:
        """Token tensors by the graph's input names; WrongDtype names the row that is not UTF-8."""
        # One text at a time: `encode_batch` would start a pool of threads for the whole machine.
        encodings = [self._tokenizer.encode(text) for text in decode_strings(texts).reshape(-1)]
        shape = (len(encodings), max((len(encoding) for encoding in encodings), default=0) or 1)
        ids = np.full(shape, self._pad_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        types = np.full(shape, self._pad_type_id, dtype=np.int64)
        for row, encoding in enumerate(encodings):
            length = len(encoding)
            ids[row, :length] = encoding.ids
            mask[row, :length] = encoding.attention_mask
            types[row, :length] = encoding.type_ids
        tensors = {self._step.input_ids: ids}
        if self._step.attention_mask is not None:
            tensors[self._step.attention_mask] = mask
        if self._step.token_type_ids is not None:
            tensors[self._step.token_type_ids] = types
        return tensors
