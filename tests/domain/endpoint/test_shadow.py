"""How a shadow's answer differs."""

import numpy as np
import pytest

from shared.domain.endpoint.shadow import Comparison, compare
from shared.domain.tensors import bytes_tensor


def fp32(*rows: list[float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array(rows, dtype=np.float32)


def test_classes_agree_by_the_largest_score() -> None:
    primary = {"p": fp32([0.9, 0.1], [0.2, 0.8], [0.6, 0.4])}
    shadow = {"p": fp32([0.7, 0.3], [0.4, 0.6], [0.4, 0.6])}
    found = compare(primary, shadow, 3)
    assert found is not None
    assert (found.rows, found.agreeing) == (3, 2)
    assert found.distance == pytest.approx(0.2)
    assert found.largest == pytest.approx(0.2)


def test_single_scores_agree_to_a_thousandth() -> None:
    found = compare({"y": fp32([1.0], [2.0])}, {"y": fp32([1.0005], [2.1])}, 2)
    assert found is not None
    assert (found.rows, found.agreeing) == (2, 1)


def test_texts_and_whole_numbers_agree_if_they_are_equal() -> None:
    primary = {"label": bytes_tensor([b"a", b"b"]), "k": np.array([[1, 2], [3, 4]])}
    assert compare(primary, primary, 2) == Comparison(2, 2, 0.0, 0.0)
    shadow = {"label": bytes_tensor([b"a", b"b"]), "k": np.array([[1, 2], [3, 5]])}
    assert compare(primary, shadow, 2) == Comparison(2, 1, 0.0, 0.0)


def test_every_output_has_to_agree() -> None:
    primary = {"label": bytes_tensor([b"a", b"b"]), "p": fp32([0.9, 0.1], [0.1, 0.9])}
    shadow = {"label": bytes_tensor([b"a", b"x"]), "p": fp32([0.1, 0.9], [0.1, 0.9])}
    found = compare(primary, shadow, 2)
    assert found is not None
    assert found.agreeing == 0


def test_only_what_both_have_is_compared() -> None:
    assert compare({"a": fp32([1.0])}, {"b": fp32([1.0])}, 1) is None
    assert compare({"a": fp32([1.0])}, {"a": fp32([1.0, 2.0])}, 1) is None
    assert compare({"a": fp32([1.0])}, {"a": np.array([[1]])}, 1) is None
    found = compare({"a": fp32([1.0]), "more": fp32([3.0])}, {"a": fp32([1.0])}, 1)
    assert found is not None
    assert found.agreeing == 1


def test_without_rows_it_is_one_answer() -> None:
    found = compare({"p": fp32([0.1, 0.9], [0.3, 0.2])}, {"p": fp32([0.1, 0.8], [0.3, 0.2])}, None)
    assert found is not None
    assert (found.rows, found.agreeing) == (1, 1)


def test_what_is_no_number_does_not_count_as_distance() -> None:
    found = compare({"y": fp32([np.nan], [1.0])}, {"y": fp32([np.nan], [2.0])}, 2)
    assert found is not None
    assert (found.agreeing, found.distance, found.largest) == (1, 1.0, 1.0)
