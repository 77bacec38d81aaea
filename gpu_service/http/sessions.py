"""`/invocations` with SageMaker's stateful sessions; see `gpu_service.inference.sessions`."""

from http import HTTPStatus
from time import monotonic
from typing import Any

import orjson

from gpu_service.http.documents import answer_json
from gpu_service.http.exchange import Exchange
from gpu_service.http.prediction import PredictionDoor
from gpu_service.inference.request import InferenceRequest
from gpu_service.inference.sessions import (
    CLOSED_SESSION_HEADER,
    NEW_SESSION,
    NEW_SESSION_HEADER,
    Session,
    SessionStore,
)
from shared.domain.errors import SluiceError

_MAX_CONTROL_BYTES = 256


class SessionDoor(PredictionDoor):
    """Predicts within a session where the request names one, and as `PredictionDoor` where it does not."""

    def __init__(self, store: SessionStore, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._store = store
        self._sessions: dict[Exchange, Session] = {}

    def _begin(self, exchange: Exchange) -> None:
        if "x-amzn-sagemaker-session-id" not in exchange.head.headers:
            super()._begin(exchange)
            return
        arrived = monotonic()
        negotiated = self._prepare(exchange)
        call = negotiated.call
        model = self._dataplane.find(call, arrived)
        if negotiated.content_encoding:
            self._decompress(exchange, negotiated.content_encoding)
        asked = _control(exchange.body)
        if asked == "CLOSE":
            self._store.close(call.session, call.tenant, model.key, arrived)
            headers = [(CLOSED_SESSION_HEADER, call.session)]
            answer_json(exchange, HTTPStatus.OK, {"closed": call.session}, headers)
            return
        if call.session == NEW_SESSION:
            session = self._store.open(call.tenant, model.key, model.serving.state, arrived)
            exchange.headers = ((NEW_SESSION_HEADER, session.header),)
            if asked == NEW_SESSION:
                self._store.release(session)
                answer_json(exchange, HTTPStatus.OK, {"opened": session.id}, exchange.headers)
                return
        else:
            session = self._store.acquire(call.session, call.tenant, model.key, arrived)
        try:
            decoded = negotiated.request.decode(exchange.body, model.signature, self._limits)
            self._sessions[exchange] = session
            exchange.request = self._dataplane.accept(call, model, decoded, arrived, self._continued, exchange, session)
        except Exception as error:
            self._give_up(exchange, session)
            if isinstance(error, SluiceError):
                model.stats.refused(error.code)
            raise

    def _continued(self, request: InferenceRequest) -> None:
        """The run is done: keep its state, answer with the rest."""
        exchange: Exchange = request.context
        session = self._sessions[exchange]
        try:
            if request.error is None and request.result is not None:
                request.result = self._store.finish(session, request.result, request.rows)
                del self._sessions[exchange]
            else:
                self._give_up(exchange, session)
        except SluiceError as error:
            self._sessions.pop(exchange, None)
            request.error = error
        self._answer(request)

    def _give_up(self, exchange: Exchange, session: Session) -> None:
        """The request failed: the session is as before, and one that it would have opened never was."""
        self._sessions.pop(exchange, None)
        if exchange.headers:
            exchange.headers = ()
            self._store.discard(session)
        else:
            self._store.release(session)


def _control(body: bytes) -> str:
    """What a body `{"requestType": …}` asks for; empty for any other."""
    if len(body) > _MAX_CONTROL_BYTES:
        return ""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    if isinstance(document, dict) and document.keys() == {"requestType"}:
        return str(document["requestType"])
    return ""
