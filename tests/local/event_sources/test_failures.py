import pytest

from infra.local.event_sources.failures import failed_items

BATCH = frozenset({"a", "b"})


@pytest.mark.parametrize(
    "answer", ["", "null", "{}", '{"batchItemFailures": null}', '{"batchItemFailures": []}', '{"other": 1}']
)
def test_no_failures_mean_that_all_is_done(answer: str) -> None:
    assert failed_items(answer.encode(), BATCH) == frozenset()


def test_what_is_named_has_failed() -> None:
    assert failed_items(b'{"batchItemFailures": [{"itemIdentifier": "b"}]}', BATCH) == {"b"}
    assert failed_items(b'{"batchItemFailures": [{"itemIdentifier": "b"}, {"itemIdentifier": "b"}]}', BATCH) == {"b"}


@pytest.mark.parametrize(
    "answer",
    [
        "nonsense",
        '"text"',
        "[]",
        "1",
        '{"batchItemFailures": "b"}',
        '{"batchItemFailures": ["b"]}',
        '{"batchItemFailures": [{}]}',
        '{"batchItemFailures": [{"itemIdentifier": ""}]}',
        '{"batchItemFailures": [{"itemIdentifier": null}]}',
        '{"batchItemFailures": [{"itemIdentifier": {}}]}',
        '{"batchItemFailures": [{"ItemIdentifier": "b"}]}',
        '{"batchItemFailures": [{"itemIdentifier": "b"}, {"itemIdentifier": "unknown"}]}',
    ],
)
def test_what_is_not_understood_means_that_all_has_failed(answer: str) -> None:
    assert failed_items(answer.encode(), BATCH) == BATCH
