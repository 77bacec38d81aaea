"""Documents of batches: what starts one. What is shown of it is the job's document."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.batches import DEFAULT_ERROR_SHARE
from shared.domain.endpoint.config import LABEL
from shared.domain.jobs import JOB_ID

BatchFormat = Literal["csv", "csv.gz", "jsonl", "jsonl.gz", "npy", "npy.gz", "parquet"]


class BatchRequest(BaseModel):
    """A file to predict: exactly one of `upload_id` and `s3_uri`.

    `format` is told by the file's name or its media type where it is left out. Of the rows, the share
    `max_error_share` may be wrong: they keep their place in the output, and the manifest names them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    upload_id: Annotated[str, Field(pattern=f"^{JOB_ID}$", description="An upload of `POST /v1/uploads`")] | None = None
    s3_uri: Annotated[str, Field(max_length=1100, examples=["s3://bucket/inputs/acme/rows.csv"])] | None = None
    format: BatchFormat | None = None
    max_error_share: Annotated[float, Field(ge=0, le=1)] = DEFAULT_ERROR_SHARE
    version: Annotated[int, Field(ge=1, le=999_999_999)] | Annotated[str, Field(pattern=f"^{LABEL}$")] | None = None
