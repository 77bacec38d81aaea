"""Documents of uploads."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.jobs import JOB_ID
from shared.domain.uploads import MAX_MEDIA_TYPE, MAX_UPLOAD, MEDIA_TYPE, NAME, SHA256, NewUpload, Upload, UploadAddress

UploadId = Annotated[str, Field(pattern=f"^{JOB_ID}$")]
Size = Annotated[int, Field(ge=1, le=MAX_UPLOAD, description="In bytes")]
MediaType = Annotated[str, Field(max_length=MAX_MEDIA_TYPE, pattern=f"^{MEDIA_TYPE}$", examples=["text/csv"])]
Sha256 = Annotated[str, Field(pattern=f"^{SHA256}$", description="SHA-256 of the content, in hexadecimal")]
FileName = Annotated[str, Field(pattern=f"^{NAME}$", examples=["orders.csv.gz"])]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UploadRequest(_Document):
    """What is about to be uploaded. The name tells batches the format where the media type does not."""

    size: Size
    media_type: MediaType
    sha256: Sha256
    name: FileName | None = None

    def to_new(self) -> NewUpload:
        """The domain's value."""
        return NewUpload(self.size, self.media_type, self.sha256, self.name)


class CreatedUpload(_Document):
    """Where the content goes to: one request with this method and these headers, before `expires_at`."""

    upload_id: UploadId
    url: str
    method: Literal["PUT"]
    headers: dict[str, str]
    expires_at: Timestamp

    @classmethod
    def of(cls, address: UploadAddress) -> Self:
        """The document of a domain value."""
        return cls(
            upload_id=address.upload_id,
            url=address.url,
            method="PUT",
            headers=dict(address.headers),
            expires_at=_timestamp(address.expires_at),
        )


class UploadDocument(_Document):
    """An upload whose content is there; jobs and batches may name it until `expires_at`."""

    upload_id: UploadId
    size: Size
    media_type: str
    sha256: Sha256 | None
    name: str | None
    uploaded_at: Timestamp
    expires_at: Timestamp

    @classmethod
    def of(cls, upload: Upload) -> Self:
        """The document of a domain value."""
        head = upload.head
        return cls(
            upload_id=upload.upload_id,
            size=head.size,
            media_type=head.media_type,
            sha256=head.sha256,
            name=head.name,
            uploaded_at=_timestamp(head.modified_at),
            expires_at=_timestamp(upload.expires_at),
        )


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat(timespec="seconds")
