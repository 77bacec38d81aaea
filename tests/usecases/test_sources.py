"""What a tenant may have read, and what it is told of all else."""

from dataclasses import replace

import pytest

from shared.domain.errors import MissingField, NotFound, OutOfRange, SourceNotFound, UploadNotFound
from shared.domain.jobs import ObjectRef
from shared.domain.uploads import KEPT_S, InputPrefix, ObjectHead, Source, input_prefixes
from shared.usecases.sources import Sources
from tests.memory_objects import MemoryObjects

NOW = 1_800_000_000.0
HEAD = ObjectHead(1234, "text/csv", NOW - 60, '"e"', version_id="v1", sha256="0" * 64)
# Part of the names of tests, which all processes of a run must agree on.
UPLOAD = "01a1febb4d5a795c4f42e9411065a65c"
JOB = "01a1febb4d5a1a2b3c4d5e6f708192a3"


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def sources(objects: MemoryObjects) -> Sources:
    prefixes = input_prefixes("lake/exports/,other.bucket/")
    return Sources(objects, "data", prefixes, now=lambda: NOW)


@pytest.mark.parametrize(
    ("bucket", "key"),
    [
        ("data", f"uploads/acme/{UPLOAD}"),
        ("data", "batch/in/acme/tumor/orders 2026-11.csv"),
        ("data", f"batch/out/acme/tumor/{JOB}/part.jsonl"),
        ("data", f"jobs/out/acme/{JOB}/{JOB}"),
        ("lake", "exports/acme/2026/größe.parquet"),
        ("lake", "exports/acme/what?is=this#&%2e%2e"),
        ("other.bucket", "acme/x.npy"),
        ("other.bucket", "acme/..x/a..b/..."),
        ("other.bucket", "acme/" + "x" * 1019),
    ],
)
def test_what_is_below_a_place_of_the_tenant_is_found(
    objects: MemoryObjects, sources: Sources, bucket: str, key: str
) -> None:
    objects.put(ObjectRef(bucket, key), replace(HEAD, version_id="v0"))
    objects.put(ObjectRef(bucket, key), HEAD)
    found = sources.resolve("acme", s3_uri=f"s3://{bucket}/{key}")
    # What is read later is the version that was looked at.
    assert found == Source(ObjectRef(bucket, key, "v1"), 1234, "text/csv", key.rpartition("/")[2])
    assert objects.asked == [ObjectRef(bucket, key)]


FORBIDDEN = [
    # another tenant's, also where its name begins alike
    f"s3://data/uploads/rival/{UPLOAD}",
    "s3://data/uploads/acme2/x",
    "s3://data/uploads/acme",
    "s3://data/uploads/acme/",
    "s3://data/uploads//x",
    "s3://data/uploads/x",
    # what of the data bucket is not the tenants' to name
    f"s3://data/jobs/in/acme/{JOB}",
    f"s3://data/batch/work/acme/{JOB}",
    "s3://data/async/in/acme/x",
    "s3://data/idempotency/acme/x",
    "s3://data/acme/x",
    # ways up and around
    "s3://data/uploads/acme/../rival/x",
    "s3://data/uploads/acme/..",
    "s3://data/uploads/acme/./x",
    "s3://data/uploads/acme//x",
    "s3://data/uploads/acme/x/",
    "s3://data/../data/uploads/acme/x",
    "s3://data/uploads/rival/../acme/x",
    "s3://data/uploads/acme/a\nb",
    "s3://data/uploads/acme/a\x00b",
    "s3://data/uploads/acme/\ud800",
    "s3://data/uploads/acme/" + "x" * 1024,
    # other buckets, and places that only look like those that are opened
    "s3://models/uploads/acme/x",
    "s3://DATA/uploads/acme/x",
    "s3://data@evil/uploads/acme/x",
    "s3://data:80/uploads/acme/x",
    "s3://lake/acme/x",
    "s3://lake/exports/rival/x",
    "s3://lake/exportsacme/x",
    "s3://lake/exports/x",
    "s3://other.bucket/x",
    "s3://other.bucket/exports/acme/x",
    "s3://arn:aws:s3:us-east-1:1:accesspoint/p/acme/x",
]


@pytest.mark.parametrize("uri", FORBIDDEN)
def test_all_else_is_not_there(objects: MemoryObjects, sources: Sources, uri: str) -> None:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    objects.put(ObjectRef(bucket, key), HEAD)
    with pytest.raises(SourceNotFound) as forbidden:
        sources.resolve("acme", s3_uri=uri)
    assert objects.asked == []
    with pytest.raises(SourceNotFound) as missing:
        sources.resolve("acme", s3_uri="s3://data/uploads/acme/none")
    assert type(forbidden.value) is type(missing.value)
    assert forbidden.value.code == missing.value.code


@pytest.mark.parametrize("tenant", ["", ".", "..", "acme/uploads", "*", "Acme", "acme\n", "acme/"])
def test_what_is_no_tenant_reads_nothing(objects: MemoryObjects, sources: Sources, tenant: str) -> None:
    objects.put(ObjectRef("data", f"uploads/{tenant}/{UPLOAD}"), HEAD)
    for asked in ({"upload_id": UPLOAD}, {"s3_uri": f"s3://data/uploads/{tenant}/{UPLOAD}"}):
        with pytest.raises(NotFound):
            sources.resolve(tenant, **asked)
    assert objects.asked == []


@pytest.mark.parametrize(
    ("uri", "detail"),
    [
        ("", "must name an object"),
        ("data/uploads/acme/x", "must name an object"),
        ("https://data.s3.amazonaws.com/uploads/acme/x", "must name an object"),
        ("S3://data/uploads/acme/x", "must name an object"),
        ("s3://data", "must name an object"),
        ("s3://data/", "must name an object"),
        ("s3:///uploads/acme/x", "must name an object"),
        ("s3://data/uploads/acme/x?versionId=abc", "names a version"),
        ("s3://data/uploads/acme/x?version-id=abc", "names a version"),
    ],
)
def test_what_is_no_address_is_told(sources: Sources, uri: str, detail: str) -> None:
    with pytest.raises(OutOfRange, match=detail) as refused:
        sources.resolve("acme", s3_uri=uri)
    assert [field.pointer for field in refused.value.fields] == ["/s3_uri"]


def test_an_input_is_named_in_one_way(sources: Sources) -> None:
    for both in ({}, {"upload_id": UPLOAD, "s3_uri": "s3://data/uploads/acme/x"}):
        with pytest.raises(MissingField):
            sources.resolve("acme", **both)


def test_an_upload_is_found_by_its_tenant_for_a_week(objects: MemoryObjects, sources: Sources) -> None:
    ref = ObjectRef("data", f"uploads/acme/{UPLOAD}")
    with pytest.raises(UploadNotFound):  # its content has not arrived
        sources.resolve("acme", upload_id=UPLOAD)
    objects.put(ref, replace(HEAD, name="orders.csv"))
    assert sources.resolve("acme", upload_id=UPLOAD) == Source(
        replace(ref, version_id="v1"), 1234, "text/csv", "orders.csv"
    )
    assert sources.resolve("acme", s3_uri=ref.uri).name == "orders.csv"
    assert sources.upload("acme", UPLOAD).expires_at == HEAD.modified_at + KEPT_S
    with pytest.raises(UploadNotFound):
        sources.resolve("rival", upload_id=UPLOAD)
    for upload_id in ("", "x", UPLOAD.upper(), f"../acme/{UPLOAD}", f"{UPLOAD}\n", f"{UPLOAD}/x"):
        with pytest.raises(UploadNotFound):
            sources.resolve("acme", upload_id=upload_id)
    objects.put(ref, replace(HEAD, modified_at=NOW - KEPT_S))
    with pytest.raises(UploadNotFound):
        sources.resolve("acme", upload_id=UPLOAD)


def test_an_upload_without_a_name_is_called_by_its_id(objects: MemoryObjects, sources: Sources) -> None:
    objects.put(ObjectRef("data", f"uploads/acme/{UPLOAD}"), HEAD)
    assert sources.resolve("acme", upload_id=UPLOAD).name == UPLOAD


def test_names_of_other_objects_are_those_of_their_keys(objects: MemoryObjects, sources: Sources) -> None:
    """What somebody else's metadata say is no name of ours: it could be a path."""
    objects.put(ObjectRef("lake", "exports/acme/a.csv"), replace(HEAD, name="../../b.csv"))
    assert sources.resolve("acme", s3_uri="s3://lake/exports/acme/a.csv").name == "a.csv"


def test_places_are_read_from_a_list() -> None:
    assert input_prefixes("") == ()
    assert input_prefixes("lake/a/b/, other/") == (InputPrefix("lake", "a/b/"), InputPrefix("other", ""))


@pytest.mark.parametrize(
    "text",
    [
        "lake",
        "lake/a",
        "/a/",
        "s3://lake/a/",
        "lake//a/",
        "lake/../",
        "lake/a/./",
        "lake/a b/",
        "L/a/",
        "*/",
    ],
)
def test_a_place_ends_with_a_slash_and_is_plain(text: str) -> None:
    with pytest.raises(ValueError, match=r"a place is|no parts"):
        input_prefixes(text)


def test_the_stack_s_own_buckets_are_no_such_places() -> None:
    """A tenant called `jobs` or `uploads` would read what is everybody's."""
    with pytest.raises(ValueError, match="the stack's own"):
        input_prefixes("lake/,data/", "data", "models")
