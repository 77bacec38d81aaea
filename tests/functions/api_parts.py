"""The services of the public API in memory, and the application of them."""

import logging
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from fastapi import FastAPI

from functions.api.bootstrap import application
from functions.api.documentation import Contract
from functions.api.services import Services
from shared.domain.endpoint.config import EndpointConfig
from shared.domain.ports import ModelRegistry
from tests.fakes import InMemoryModels
from tests.functions.support import open_door


def api_services(
    registry: ModelRegistry | None = None,
    config_of: Callable[[str], EndpointConfig] = EndpointConfig,
    *,
    contract_ttl_s: float = 0,
    **more: Any,
) -> Services:
    """Services in memory; `more` are those that a test brings itself, by their names. There are no others."""
    models = registry or InMemoryModels()
    made: dict[str, Any] = {
        "door": open_door(),
        "registry": models,
        "config_of": config_of,
        "contract": Contract(models, config_of, contract_ttl_s),
    }
    return Services(**{**{field.name: None for field in fields(Services)}, **made, **more})


def api_application(log: logging.Logger, *given: Any, **more: Any) -> FastAPI:
    """The application on such services."""
    return application(api_services(*given, **more), log)
