from collections.abc import Iterator

import pytest

from shared.domain import errors
from shared.schemas.api import Problem
from shared.web.problems import MEDIA_TYPE, STATUS, problem_of, status_of


def tree(root: type[errors.SluiceError] = errors.SluiceError) -> Iterator[type[errors.SluiceError]]:
    yield root
    for error in root.__subclasses__():
        yield from tree(error)


ALL = [error for error in tree() if error.__module__ == errors.__name__]


def test_every_error_has_its_status() -> None:
    assert set(ALL) == set(STATUS)


def test_codes_and_titles_are_each_errors_own() -> None:
    assert len({error.code for error in ALL}) == len(ALL)
    assert len({error.title for error in ALL}) == len(ALL)


def test_the_callers_faults_are_4xx_and_ours_5xx() -> None:
    for error in ALL:
        ours = issubclass(error, errors.BackendError | errors.InvalidPackage) or error is errors.SluiceError
        assert (status_of(error) >= 500) == ours, error


@pytest.mark.parametrize("error", ALL)
def test_an_error_becomes_a_problem_document(error: type[errors.SluiceError]) -> None:
    answer = problem_of(error("It is so.", fields=[errors.FieldError("/a~1b/0", "is wrong")]), "request-1")
    document = Problem.model_validate_json(bytes(answer.body))
    assert answer.media_type == MEDIA_TYPE
    assert (document.status, document.code, document.detail) == (answer.status_code, error.code, "It is so.")
    assert document.request_id == "request-1"
    assert document.errors[0].pointer == "/a~1b/0"


def test_an_error_of_an_adapter_takes_the_status_of_its_base() -> None:
    derived = type("Derived", (errors.BackendTimeout,), {})
    assert status_of(derived) == 504
