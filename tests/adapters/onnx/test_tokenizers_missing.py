"""A function without the tokenizers library, which its layers leave out."""

import sys
from pathlib import Path

import pytest

from shared.adapters.onnx.steps.tokenize import TextTokenizer
from shared.domain.errors import InvalidPackage
from shared.schemas.manifest import TokenizeStep


def test_a_text_package_says_where_it_belongs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)  # as Python does for a module that cannot be imported
    with pytest.raises(InvalidPackage, match='"placement": "container"') as caught:
        TextTokenizer(TokenizeStep(input="text"), tmp_path)
    assert "'text'" in caught.value.detail
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
