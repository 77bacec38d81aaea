"""AWS Lambda SnapStart: what a snapshot of this process must not share between all that are restored from it.

Lambda runs the init phase once for a published version, takes a snapshot of the whole machine, and starts every
environment from it. Source: AWS Lambda Developer Guide, "Improving startup performance with Lambda SnapStart" and
"Handling uniqueness with Lambda SnapStart".
"""

import os
import random
import sys
from collections.abc import Callable, Mapping

from botocore.session import Session

_VARIABLE = "AWS_LAMBDA_INITIALIZATION_TYPE"


def is_snapshotted(environ: Mapping[str, str]) -> bool:
    """Whether a snapshot will be taken of this process; only then does Lambda's runtime call what is registered."""
    return environ.get(_VARIABLE) == "snap-start"


def register(*, before_snapshot: Callable[[], None], after_restore: Callable[[], None]) -> None:
    """Have Lambda's runtime call these two; what either raises stops the version's publication or the environment.

    Lambda calls the first kind in the reverse order of registration, the second in its order, and gives the restore
    and all of the second kind 10 s.
    """
    from snapshot_restore_py import register_after_restore, register_before_snapshot  # part of Lambda's runtime

    register_before_snapshot(before_snapshot)
    register_after_restore(after_restore)


def reseed() -> None:
    """Give every pseudo-random generator of this process a state of its own.

    `random` draws botocore's retry delays, NumPy's global generator whatever a library asks it for, and OpenSSL's makes
    the secrets of TLS. `os.urandom` needs nothing, and with it `secrets` and `uuid.uuid4`: the kernel makes those bytes
    at every call, and Lambda sees to it that kernels restored from one snapshot differ.
    """
    random.seed()
    # Only what is loaded has a state.
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()
    if ssl := sys.modules.get("ssl"):
        ssl.RAND_add(os.urandom(48), 48.0)


def fresh_session(session: Session) -> Session:
    """A session without credentials, connections and clients, which keeps what `session` has read from disk.

    Reading it (the services' models, the rules of their endpoints) is what makes a first client slow.
    """
    fresh = Session()
    fresh.register_component("data_loader", session.get_component("data_loader"))
    return fresh
