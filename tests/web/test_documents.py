"""JSON documents in bodies and query strings, and what is said of those that are wrong."""

from datetime import date
from typing import Annotated, Any, Literal

import pytest
from openapi_schema_validator import OAS31Validator
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from shared.domain import errors
from shared.domain.plans import OnLimiterFailure
from shared.web.documents import MAX_BYTES, query_parameters, read_document, read_query


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    number: Annotated[float, Field(gt=0, le=10)]


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: Annotated[int, Field(ge=1, le=9)]
    names: Annotated[tuple[Annotated[str, Field(max_length=3, pattern="^[a-z]*$")], ...], Field(max_length=9)] = ()
    part: Part | None = None
    moment: AwareDatetime | None = None
    choice: OnLimiterFailure | None = None

    @model_validator(mode="after")
    def _agree(self) -> "Document":
        if self.count == 7:
            raise ValueError("seven does not do")
        return self


class Query(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tenant: str
    limit: Annotated[int, Field(ge=1, le=10, description="How many")] = 5
    since: date | None = None


def scope(**headers: str) -> dict[str, Any]:
    return {"headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]}


def test_a_document_is_read() -> None:
    body = b'{"count": 3, "names": ["ab"], "part": {"number": 1}, "moment": "2026-11-21T10:00:00Z", "choice": "open"}'
    for content_type in ("application/json", "application/problem+json; charset=UTF-8", ""):
        read = read_document(Document, body, scope(content_type=content_type))
        assert (read.count, read.names, read.choice) == (3, ("ab",), OnLimiterFailure.OPEN)
        assert read.part is not None
        assert read.part.number == 1.0


@pytest.mark.parametrize(
    ("body", "error", "pointers"),
    [
        ("{}", errors.MissingField, ["/count"]),
        ('{"count": 1, "other": 2}', errors.UnknownField, ["/other"]),
        ('{"count": 1, "a/b": 2}', errors.UnknownField, ["/a~1b"]),
        ('{"count": 1, "part": {"number": 1, "x": 0}}', errors.UnknownField, ["/part/x"]),
        ('{"count": "1"}', errors.WrongDtype, ["/count"]),
        ('{"count": true}', errors.WrongDtype, ["/count"]),
        ('{"count": 1.5}', errors.WrongDtype, ["/count"]),
        ('{"count": null}', errors.WrongDtype, ["/count"]),
        ('{"count": 1, "moment": "2026-11-21T10:00:00"}', errors.WrongDtype, ["/moment"]),
        ('{"count": 1, "moment": "soon"}', errors.WrongDtype, ["/moment"]),
        ("[]", errors.WrongDtype, [""]),
        ("3", errors.WrongDtype, [""]),
        ('{"count": 0}', errors.OutOfRange, ["/count"]),
        ('{"count": 1, "names": ["a", "B"]}', errors.OutOfRange, ["/names/1"]),
        ('{"count": 1, "choice": "ajar"}', errors.OutOfRange, ["/choice"]),
        ('{"count": 1, "part": {"number": NaN}}', errors.OutOfRange, ["/part/number"]),
        ('{"count": 1, "part": {"number": 1e999}}', errors.OutOfRange, ["/part/number"]),
        ('{"count": 1, "names": ["long"]}', errors.TextTooLong, ["/names/0"]),
        ('{"count": 7}', errors.OutOfRange, [""]),
        ('{"count": 0, "names": ["A"]}', errors.OutOfRange, ["/count", "/names/0"]),
    ],
)
def test_what_is_wrong_is_pointed_at(body: str, error: type[errors.SluiceError], pointers: list[str]) -> None:
    with pytest.raises(error) as caught:
        read_document(Document, body.encode(), scope())
    assert type(caught.value) is error
    assert [field.pointer for field in caught.value.fields] == pointers


def test_a_rule_between_fields_speaks_for_itself() -> None:
    with pytest.raises(errors.OutOfRange, match="The document: seven does not do"):
        read_document(Document, b'{"count": 7}', scope())


def test_what_was_sent_is_not_repeated() -> None:
    with pytest.raises(errors.SluiceError) as caught:
        read_document(Document, b'{"count": "hunter2", "names": ["Hunter2"]}', scope())
    said = caught.value.detail + "".join(field.detail for field in caught.value.fields)
    assert "hunter2" not in said.lower()


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"count": 1}}', b'{"count": "\\ud800"}', b"[" * 10_000])
def test_what_is_not_json(body: bytes) -> None:
    with pytest.raises(errors.NotJson):
        read_document(Document, body, scope())


@pytest.mark.parametrize("body", ['{"count": 1, "count": 2}', '{"count": 1, "part": {"number": 1, "n\\u0075mber": 2}}'])
def test_a_name_given_twice_is_refused(body: str) -> None:
    with pytest.raises(errors.UnknownField, match="twice"):
        read_document(Document, body.encode(), scope())


def test_many_faults_are_counted_and_some_are_shown() -> None:
    body = b'{"count": 1, "names": ["A","A","A","A","A","A","A","A","A"]}'
    with pytest.raises(errors.OutOfRange, match=r"and 8 more") as caught:
        read_document(Document, body, scope())
    assert len(caught.value.fields) == 8


def test_limits_and_media_types() -> None:
    with pytest.raises(errors.PayloadTooLarge):
        read_document(Document, b" " * (MAX_BYTES + 1), scope())
    for headers in ({"content_type": "text/csv"}, {"content_encoding": "gzip"}):
        with pytest.raises(errors.UnsupportedMediaType):
            read_document(Document, b'{"count": 1}', scope(**headers))


def test_an_optional_document_may_be_left_out() -> None:
    class Optional(BaseModel):
        overlap: int = 3

    assert read_document(Optional, b" \n", scope(), optional=True).overlap == 3


def query(text: str) -> Query:
    return read_query(Query, {"query_string": text.encode()})


def test_a_query_is_read() -> None:
    assert query("tenant=a%20b&limit=7&since=2026-11-01") == Query(tenant="a b", limit=7, since=date(2026, 11, 1))
    assert query("tenant=a") == Query(tenant="a")


@pytest.mark.parametrize(
    ("text", "error", "pointer"),
    [
        ("", errors.MissingField, "/query/tenant"),
        ("tenant=a&other=1", errors.UnknownField, "/query/other"),
        ("tenant=a&tenant=b", errors.UnknownField, "/query/tenant"),
        ("tenant=a&limit=x", errors.WrongDtype, "/query/limit"),
        ("tenant=a&limit=0", errors.OutOfRange, "/query/limit"),
        ("tenant=a&since=yesterday", errors.WrongDtype, "/query/since"),
        ("tenant=a&since=", errors.WrongDtype, "/query/since"),
    ],
)
def test_what_is_wrong_in_a_query(text: str, error: type[errors.SluiceError], pointer: str) -> None:
    with pytest.raises(error) as caught:
        query(text)
    assert [field.pointer for field in caught.value.fields] == [pointer]


class Told(BaseModel):
    """Members of many kinds, most of which may be left out."""

    model_config = ConfigDict(extra="forbid")

    cursor: Annotated[str | None, Field(pattern="^[a-f]{3}$", description="The `next`", examples=["abc"])] = None
    events: Annotated[tuple[Literal["a", "b"], ...], Field(min_length=1, examples=[["a"]])] | SkipJsonSchema[None] = (
        None
    )
    name: Annotated[str, Field(max_length=1)] | SkipJsonSchema[None] = None
    moment: AwareDatetime | None = None
    day: date | None = None
    many: Annotated[int, Field(le=9)] = 5
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    part: Part | None = None
    on: bool = False


TIME = "must be a time with its offset from UTC (RFC 3339), such as 2026-11-21T10:00:00Z"


@pytest.mark.parametrize(
    ("member", "pointer", "detail"),
    [
        ('"cursor": "x"', "/cursor", "must be of the form ^[a-f]{3}$, such as abc: The `next`"),
        ('"cursor": 1', "/cursor", "must be a text, such as abc"),
        ('"events": ["a", "c"]', "/events/1", "must be 'a' or 'b'"),
        ('"events": "a"', "/events", 'must be a list, such as ["a"]'),
        ('"events": []', "/events", "must have at least 1 entry"),
        ('"name": "long"', "/name", "must have at most 1 character"),
        ('"moment": "2026-11-21"', "/moment", TIME),
        ('"moment": "2026-11-21T10:00:00"', "/moment", TIME),
        ('"moment": 5', "/moment", TIME),
        ('"day": "soon"', "/day", "must be a date, such as 2026-11-21"),
        ('"many": "1"', "/many", "must be a whole number, such as 5"),
        ('"many": 10', "/many", "must be at most 9"),
        ('"share": 1', "/share", "must be less than 1"),
        ('"share": -0.5', "/share", "must be more than 0"),
        ('"part": 1', "/part", "must be an object"),
        ('"part": {}', "/part/number", "is missing"),
        ('"part": {"number": 1, "x": 2}', "/part/x", "is not known here"),
        ('"on": "perhaps"', "/on", "must be true or false, such as false"),
        (
            '"other": 1',
            "/other",
            "is not known here; known: cursor, events, name, moment, day, many, share, part, on",
        ),
    ],
)
def test_what_is_wrong_is_said_with_what_was_expected(member: str, pointer: str, detail: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        read_document(Told, f"{{{member}}}".encode(), scope())
    assert [(field.pointer, field.detail) for field in caught.value.fields] == [(pointer, detail)]
    assert caught.value.detail == f"{pointer}: {detail}."


def test_an_example_of_a_parameter_is_in_its_description() -> None:
    (cursor,) = (made for made in query_parameters(Told) if made["name"] == "cursor")
    assert cursor["schema"] == {"type": "string", "pattern": "^[a-f]{3}$", "examples": ["abc"]}


def test_parameters_are_described_as_they_are_sent() -> None:
    tenant, limit, since = query_parameters(Query)
    assert (tenant["name"], tenant["in"], tenant["required"]) == ("tenant", "query", True)
    assert (limit["required"], limit["description"], limit["schema"]["maximum"]) == (False, "How many", 10)
    assert since["schema"] == {"type": "string", "format": "date"}
    OAS31Validator(limit["schema"]).validate(7)
