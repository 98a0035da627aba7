"""The application: routes, documents, and the border around them."""

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from onlinerlhf.gateway.access.callers import Scope
from onlinerlhf.gateway.http import errors
from onlinerlhf.gateway.http.border import Border
from onlinerlhf.gateway.http.chat import Chat
from onlinerlhf.gateway.http.completions import Completions
from onlinerlhf.gateway.http.feedback import FeedbackEndpoint
from onlinerlhf.gateway.http.front import Front, FrontDesk, caller
from onlinerlhf.gateway.http.responses import (
    ChatCompletion,
    Completion,
    FeedbackObject,
    HealthObject,
    ModelList,
    ModelObject,
)
from onlinerlhf.gateway.http.settings import FrontSettings
from onlinerlhf.gateway.http.tokens import TokenTexts

_DESCRIPTION: Final = """OpenAI's API for the policy that is being trained.

Point any OpenAI client at `/v1` of this server with a key of this gateway. Every choice carries `sample_id`, for
`POST /v1/feedback`, and `policy_version`, the newest version that sampled any of it. With `consent` a prompt may be
learned from; the answer is the same with and without."""
_STREAM: Final[dict[str, Any]] = {
    "description": "The answer; with `stream` as server-sent events that end with `data: [DONE]`.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
_OPEN_PATHS: Final = ("/healthz",)
_API_KEY: Final = {"type": "http", "scheme": "bearer", "description": "An API key of this gateway."}
_IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[\\x20-\\x7e]+$"},
    "description": "A retry with the same key gets the same ids; with another request it is refused.",
}


def create_app(desk: FrontDesk, settings: FrontSettings, *, is_ready: Callable[[], bool]) -> ASGIApp:
    """The whole front as an ASGI application."""
    front = Front(desk=desk, settings=settings, texts=TokenTexts(desk.tokenizer))
    api = _Api(
        title="onlinerlhf gateway",
        version="1",
        description=_DESCRIPTION,
        redoc_url=None,
        redirect_slashes=False,
        responses=errors.DOCUMENTED,
    )
    errors.install(api)
    _add_routes(api, front, is_ready)
    return Border(api, settings)


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Without the answers that FastAPI documents and that are never given here."""
        if self.openapi_schema is None:
            schema = get_openapi(
                title=self.title, version=self.version, description=self.description, routes=self.routes
            )
            schema["components"]["securitySchemes"] = {"api_key": _API_KEY}
            for path, operations in schema["paths"].items():
                for method, operation in operations.items():
                    operation["responses"].pop("422", None)
                    if path not in _OPEN_PATHS:
                        operation["security"] = [{"api_key": []}]
                    if method == "post":
                        operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
            for name in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(name, None)
            self.openapi_schema = schema
        return self.openapi_schema


class _Listing:
    """What there is, and whether it is served."""

    def __init__(self, front: Front, is_ready: Callable[[], bool]) -> None:
        self._front = front
        self._is_ready = is_ready

    async def models(self, request: Request) -> ModelList:
        """All models: one, the policy."""
        await self._front.desk.authenticate(caller(request).credential, scope=Scope.GENERATE)
        return {"object": "list", "data": [self._model()]}

    async def model(self, model: str, request: Request) -> ModelObject:
        """A model by its name."""
        await self._front.desk.authenticate(caller(request).credential, scope=Scope.GENERATE)
        self._front.check_model(model)
        return self._model()

    async def health(self) -> Response:
        """Whether requests are served; needs no key."""
        is_ready = self._is_ready()
        health: HealthObject = {"status": "ok" if is_ready else "unavailable"}
        return JSONResponse(health, 200 if is_ready else 503)

    def _model(self) -> ModelObject:
        name = self._front.settings.model_name
        return {"id": name, "object": "model", "created": self._front.created, "owned_by": "onlinerlhf"}


def _add_routes(api: FastAPI, front: Front, is_ready: Callable[[], bool]) -> None:
    listing = _Listing(front, is_ready)
    api.add_api_route("/v1/models", listing.models, methods=["GET"], tags=["models"])
    api.add_api_route("/v1/models/{model:path}", listing.model, methods=["GET"], tags=["models"])
    api.add_api_route(
        "/v1/chat/completions",
        Chat(front).create,
        methods=["POST"],
        response_model=ChatCompletion,
        responses={200: _STREAM},
        operation_id="create_chat_completion",
        tags=["completions"],
    )
    api.add_api_route(
        "/v1/completions",
        Completions(front).create,
        methods=["POST"],
        response_model=Completion,
        responses={200: _STREAM},
        operation_id="create_completion",
        tags=["completions"],
    )
    api.add_api_route(
        "/v1/feedback",
        FeedbackEndpoint(front).create,
        methods=["POST"],
        response_model=FeedbackObject,
        operation_id="create_feedback",
        tags=["feedback"],
    )
    api.add_api_route("/healthz", listing.health, methods=["GET"], response_model=HealthObject, tags=["health"])
