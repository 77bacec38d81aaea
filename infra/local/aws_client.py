"""boto3 clients for the local AWS endpoint, cut off from the user's own AWS configuration.

A profile, a proxy or credentials of the environment belong to real accounts: none of them may decide where a call of
the local runtime goes or what it is signed with.
"""

import os
from typing import Any, Final

import boto3
import botocore.session
from botocore.config import Config

from infra.local.stack import REGION

ACCESS_KEY: Final = "local"
SECRET_KEY: Final = "local"  # noqa: S105 - a dummy: it opens nothing but this machine's endpoints


def isolated_session() -> boto3.Session:
    """A session with a region and dummy credentials that reads neither AWS_* variables nor ~/.aws."""
    core = botocore.session.Session(
        session_vars={
            "profile": (None, [], None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
            "ca_bundle": (None, None, None, None),
        }
    )
    return boto3.Session(
        aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=REGION, botocore_session=core
    )


def local_client(session: boto3.Session, service: str, endpoint_url: str, *, read_timeout_s: float = 10) -> Any:
    """A client of `service` at `endpoint_url`: short timeouts, one retry, no proxy."""
    config = Config(
        connect_timeout=2,
        read_timeout=read_timeout_s,
        retries={"total_max_attempts": 2, "mode": "standard"},
        proxies={},
        max_pool_connections=16,
        # Presigned addresses as S3 takes them today; botocore's own choice in this region is version 2.
        signature_version="s3v4" if service == "s3" else None,
        s3={"addressing_style": "path"},
    )
    # boto3-stubs declares one overload for each service; the name is a variable here.
    factory: Any = session.client
    return factory(service, endpoint_url=endpoint_url, config=config)
