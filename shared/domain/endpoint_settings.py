"""What is set for an endpoint at run time, without a deployment. An endpoint has the name of its model."""

from dataclasses import dataclass
from typing import Final

# As `shared.schemas.manifest.ModelName` has it.
ENDPOINT_NAME: Final = r"[a-z0-9][a-z0-9._-]{0,63}"


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """The settings of one endpoint; without further arguments those that hold until some are stored.

    `log_inputs` and `log_outputs` are the shares, from 0 to 1, of the requests whose inputs and outputs go into their
    log line; `redact` names the tensors and features of which only the name is logged then. `version` counts the
    changes: 0 was never stored.
    """

    endpoint: str
    log_inputs: float = 0.0
    log_outputs: float = 0.0
    redact: tuple[str, ...] = ()
    version: int = 0
