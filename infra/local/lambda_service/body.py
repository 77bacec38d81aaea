"""Request bodies that are never held in memory beyond a limit."""

from aiohttp import web


async def read_body(request: web.BaseRequest, limit: int) -> bytes | None:
    """The whole body, or None when it is larger than `limit` bytes; what is over the limit is not kept.

    Raises:
        ConnectionError: the other side has gone away before the end.

    """
    length = request.content_length
    if length is not None and length > limit:
        return None
    if not request.can_read_body:
        return b""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
