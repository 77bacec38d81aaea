"""Standard queues of moto's SQS as SQS has them, with the `Shelf` in place of moto's list of messages.

moto looks through all messages of a queue at every receive and every delete, hands one message to two receivers that
come at the same moment, gives messages out in the order of their arrival whatever their `MessageGroupId`, and lets a
receiver whose time is over delete a message that another one works on. FIFO queues stay moto's own, and so does what
a message is. No message expires here: the stack lives for less than a queue keeps messages.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from infra.local.message_shelf import HeldTooLong, InvalidReceipt, NoSuchReceipt, NotInFlight, Shelf

if TYPE_CHECKING:
    from moto.sqs.models import Message, Queue, SQSBackend

_NOT_IN_FLIGHT = "AWS.SimpleQueueService.MessageNotInflight"


@cache
def install() -> None:
    """Give moto, in this process, these queues; before there are any."""
    from moto.sqs.models import Queue, SQSBackend

    _replace(Queue, "add_message", _add_message)
    _replace(Queue, "delete_message", _delete_message)
    _replace(SQSBackend, "receive_message", _receive_message)
    _replace(SQSBackend, "change_message_visibility", _change_message_visibility)
    _replace(SQSBackend, "purge_queue", _purge_queue)
    _replace(SQSBackend, "change_message_visibility_batch", _change_visibility_batch)
    for place, name in enumerate(("", "_not_visible", "_delayed")):
        _replace_count(Queue, f"approximate_number_of_messages{name}", place)


def _replace(owner: type, name: str, method: Callable[..., Any]) -> None:
    """Has `method` called in place of the one of that name, with that one as its first argument."""
    moto_own = getattr(owner, name)

    def replaced(self: Any, *arguments: Any, **named: Any) -> Any:
        return method(moto_own, self, *arguments, **named)

    setattr(owner, name, replaced)


def _replace_count(owner: type, name: str, place: int) -> None:
    moto_own = getattr(owner, name).fget

    def count(queue: "Queue") -> int:
        return int(moto_own(queue)) if queue.fifo_queue else _shelf(queue).counts()[place]

    setattr(owner, name, property(count))


def _shelf(queue: "Queue") -> "Shelf[Message]":
    # One step, so two threads that come first get the same shelf.
    return cast("Shelf[Message]", queue.__dict__.setdefault("shelf", Shelf()))


def _add_message(moto_own: Callable[..., None], queue: "Queue", message: "Message") -> None:
    if queue.fifo_queue:
        moto_own(queue, message)
    else:
        _shelf(queue).put(message)


def _delete_message(moto_own: Callable[..., None], queue: "Queue", receipt_handle: str) -> None:
    from moto.sqs.exceptions import ReceiptHandleIsInvalid

    if queue.fifo_queue:
        return moto_own(queue, receipt_handle)
    try:
        return _shelf(queue).delete(receipt_handle)
    except InvalidReceipt:
        raise ReceiptHandleIsInvalid from None


def _receive_message(
    moto_own: Callable[..., "list[Message]"],
    backend: "SQSBackend",
    queue_name: str,
    count: int,
    wait_seconds_timeout: int,
    visibility_timeout: int,
    message_attribute_names: list[str] | None = None,
) -> "list[Message]":
    from moto.sqs.models import _filter_message_attributes

    queue = backend.get_queue(queue_name)
    if queue.fifo_queue:
        return moto_own(backend, queue_name, count, wait_seconds_timeout, visibility_timeout, message_attribute_names)
    shelf = _shelf(queue)
    deadline = time.monotonic() + wait_seconds_timeout
    while True:
        messages = _take(queue, count, int(visibility_timeout) * 1000)
        left_s = deadline - time.monotonic()
        if messages or left_s <= 0:
            break
        shelf.wait(left_s)
    for message in messages:
        _filter_message_attributes(message, message_attribute_names or [])
    return messages


def _take(queue: "Queue", count: int, hold_ms: int) -> "list[Message]":
    dead_letters = queue.dead_letter_queue
    if dead_letters is None or not queue.redrive_policy:
        return _shelf(queue).take(count, hold_ms, max_receives=None)[0]
    messages, dead = _shelf(queue).take(count, hold_ms, max_receives=queue.redrive_policy["maxReceiveCount"])
    for message in dead:
        dead_letters.add_message(message)
    return messages


def _change_message_visibility(
    moto_own: Callable[..., None], backend: "SQSBackend", queue_name: str, receipt_handle: str, visibility_timeout: int
) -> None:
    from moto.sqs.exceptions import InvalidParameterValue, ReceiptHandleIsInvalid, SQSException

    queue = backend.get_queue(queue_name)
    if queue.fifo_queue:
        return moto_own(backend, queue_name, receipt_handle, visibility_timeout)
    try:
        return _shelf(queue).hold(receipt_handle, int(visibility_timeout) * 1000)
    except InvalidReceipt:
        raise ReceiptHandleIsInvalid from None
    except NoSuchReceipt:
        raise InvalidParameterValue(
            f"Value {receipt_handle} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not"
            " available for visibility timeout change."
        ) from None
    except NotInFlight:
        raise SQSException(_NOT_IN_FLIGHT, "The message referred to is not in flight.") from None
    except HeldTooLong:
        raise InvalidParameterValue(
            f"Value {visibility_timeout} for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout"
            " for the message is beyond the limit [43200 seconds]"
        ) from None


def _change_visibility_batch(
    _moto_own: Callable[..., Any], backend: "SQSBackend", queue_name: str, entries: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[dict[str, Any]]]:
    """In moto the call fails as a whole where one entry does, but for two errors."""
    from moto.sqs.exceptions import SQSException

    changed: list[str] = []
    failed: list[dict[str, Any]] = []
    for entry in entries:
        try:
            backend.change_message_visibility(queue_name, entry["ReceiptHandle"], int(entry["VisibilityTimeout"]))
        except SQSException as error:
            failed.append({"Id": entry["Id"], "SenderFault": True, "Code": error.code, "Message": error.message})
        else:
            changed.append(entry["Id"])
    return changed, failed


def _purge_queue(moto_own: Callable[..., None], backend: "SQSBackend", queue_name: str) -> None:
    moto_own(backend, queue_name)
    queue = backend.get_queue(queue_name)
    if not queue.fifo_queue:
        _shelf(queue).clear()
