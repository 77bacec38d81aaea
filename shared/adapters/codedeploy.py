"""Tells AWS CodeDeploy what a check of a deployment has found."""

from typing import Literal, Protocol

from shared.adapters.aws import aws_errors

Status = Literal["Succeeded", "Failed"]


class Client(Protocol):
    """The one call of botocore's CodeDeploy client that is made."""

    def put_lifecycle_event_hook_execution_status(
        self,
        *,
        deploymentId: str,  # noqa: N803 - AWS's names
        lifecycleEventHookExecutionId: str,  # noqa: N803
        status: Status,
    ) -> object:
        """API `PutLifecycleEventHookExecutionStatus`."""


def report(client: Client, deployment_id: str, execution_id: str, status: Status) -> None:
    """Let the deployment go on, or have it rolled back. BackendError as `aws_errors` says."""
    with aws_errors("CodeDeploy"):
        client.put_lifecycle_event_hook_execution_status(
            deploymentId=deployment_id, lifecycleEventHookExecutionId=execution_id, status=status
        )
