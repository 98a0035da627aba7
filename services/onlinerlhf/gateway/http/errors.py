"""Refusals in OpenAI's shape: {"error": {"message", "type", "param", "code"}}. None of them repeats what was sent.

The way from an error of ours to a status: runtime.statuses says which gRPC code it is, the table here which HTTP status
that is.
"""

import logging
import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from grpc import StatusCode
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from onlinerlhf.core.errors import OnlineRLHFError
from onlinerlhf.gateway.http.responses import ErrorResponse
from onlinerlhf.gateway.http.strictness import UNKNOWN, UNSUPPORTED, shown
from onlinerlhf.runtime.logs import describe_exception
from onlinerlhf.runtime.statuses import status_of

log = logging.getLogger(__name__)

HTTP_STATUSES: Final[dict[StatusCode, int]] = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.FAILED_PRECONDITION: 409,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DATA_LOSS: 503,
    StatusCode.INTERNAL: 500,
}
"""Of every code that runtime.statuses knows."""
TYPES: Final[dict[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    409: "conflict_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
"""The others are `invalid_request_error`."""
CODES: Final[dict[int, str]] = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
"""The others are the error's reason."""
RETRY_AFTER_SECONDS: Final = 1.0
"""Where waiting helps and nothing says for how long."""

DOCUMENTED: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in {
        400: "The request can never be accepted; `code` says why.",
        401: "No API key, an unknown one or a revoked one.",
        403: "The API key lacks the scope.",
        404: "No such model, sample or path.",
        408: "The body did not come in time.",
        409: "The idempotency key came with another request before.",
        413: "The body or the prompt is too large.",
        429: "A limit is reached; Retry-After and retry-after-ms say when to try again.",
        431: "The headers are too large.",
        500: "A fault of ours; the message has an id to ask about.",
        503: "Something needed is away; Retry-After says when to try again.",
    }.items()
}

# Messages of pydantic's that hold bounds and types, and nothing of the input.
_SAFE_MESSAGES: Final = frozenset(
    (
        *("bool_type", "dict_type", "float_type", "int_type", "list_type", "model_attributes_type", "model_type"),
        *("finite_number", "greater_than", "greater_than_equal", "less_than", "less_than_equal"),
        *("string_type", "string_unicode", "string_too_long", "string_too_short", "string_pattern_mismatch"),
        *("literal_error", "missing", "too_long", "too_short"),
    )
)
LOGGED: Final = "onlinerlhf_logged"
"""In a request's scope: what is raised out of it is already in the log."""
_LOCATIONS: Final = ("body", "path", "query")


def error_object(status: int, message: str, *, code: str | None, param: str | None = None) -> ErrorResponse:
    """The body of a refusal."""
    kind = TYPES.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def respond(
    status: int, message: str, *, code: str | None, param: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """A refusal."""
    return JSONResponse(error_object(status, message, code=code, param=param), status, headers=headers)


def http_status(error: OnlineRLHFError) -> tuple[int, str]:
    """Status and code word of an error of ours."""
    grpc_code, reason = status_of(error)
    status = 413 if reason == "too_large" else HTTP_STATUSES[grpc_code]
    return status, CODES.get(status, reason)


def refusal(error: OnlineRLHFError) -> Response:
    """An error of ours as a response. One that no client can help is logged under an id."""
    status, code = http_status(error)
    if status == 500:
        return unexpected(error)
    return respond(status, str(error), code=code, headers=_headers(status, error))


def unexpected(error: BaseException) -> Response:
    """The client gets an id to ask about; what happened is for the log alone."""
    return respond(500, f"internal error {_log_unexpected(error)}", code="internal_error")


def event_of(error: Exception) -> ErrorResponse:
    """An error after a stream has begun."""
    if isinstance(error, OnlineRLHFError) and http_status(error)[0] != 500:
        status, code = http_status(error)
        return error_object(status, str(error), code=code)
    return error_object(500, f"internal error {_log_unexpected(error)}", code="internal_error")


def install(app: FastAPI) -> None:
    """Every error that a handler or the framework raises has this shape."""
    app.add_exception_handler(OnlineRLHFError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _frameworks)
    app.add_exception_handler(Exception, _any)


async def _ours(request: Request, error: Exception) -> Response:
    del request
    return refusal(error) if isinstance(error, OnlineRLHFError) else unexpected(error)


async def _any(request: Request, error: Exception) -> Response:
    # The framework raises it again after this answer.
    request.scope[LOGGED] = True
    return unexpected(error)


async def _invalid(request: Request, error: Exception) -> Response:
    del request
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    return invalid(problems)


async def _frameworks(request: Request, error: Exception) -> Response:
    del request
    if not isinstance(error, HTTPException):
        return unexpected(error)
    words = {
        400: ("the body is not JSON that can be read", "invalid_json"),
        404: ("there is nothing at this path", "not_found"),
        405: ("this path takes other methods", "method_not_allowed"),
    }
    message, code = words.get(error.status_code, ("the request is refused", "refused"))
    return respond(error.status_code, message, code=code, headers=error.headers)


def invalid(problems: Sequence[Mapping[str, Any]]) -> Response:
    """The first thing wrong with a body, without its value."""
    if not problems:
        return respond(400, "the request is not valid", code="invalid")
    problem = problems[0]
    kind, context = str(problem["type"]), problem.get("ctx") or {}
    param = _param(context["param"] if "param" in context else problem["loc"])
    if kind == "json_invalid":
        return respond(400, "the body is not JSON", code="invalid_json")
    if kind in (UNKNOWN, UNSUPPORTED):
        message = f"{problem['msg']}: {param or 'its name is not shown'}"
        return respond(400, message, code=kind, param=param)
    several = len({other["type"] for other in problems}) > 1 and len({_param(each["loc"]) for each in problems}) == 1
    message = "has none of the forms it can have" if several else _message(problem, context)
    return respond(400, f"{param or 'the body'}: {message}", code="invalid", param=param)


def _message(problem: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    if problem["type"] in _SAFE_MESSAGES:
        return str(problem["msg"])
    return str(context["message"]) if "param" in context else "is not valid"


def _param(where: object) -> str | None:
    """The field at the top of the body."""
    parts = [where] if isinstance(where, str) else list(where) if isinstance(where, tuple | list) else []
    if parts and parts[0] in _LOCATIONS:
        parts = parts[1:]
    return (shown(parts[0]) or None) if parts and isinstance(parts[0], str) else None


def _headers(status: int, error: OnlineRLHFError) -> dict[str, str]:
    if status == 401:
        return {"WWW-Authenticate": 'Bearer realm="onlinerlhf"'}
    if status not in (429, 503):
        return {}
    seconds = getattr(error, "retry_after_seconds", None)
    wait_seconds = RETRY_AFTER_SECONDS if seconds is None else max(float(seconds), 0.0)
    return {"Retry-After": str(math.ceil(wait_seconds)), "retry-after-ms": str(math.ceil(wait_seconds * 1_000))}


def _log_unexpected(error: BaseException) -> str:
    error_id = uuid.uuid4().hex[:12]
    # A request's error may quote the request, whatever its class.
    told = describe_exception(error, safe=(OnlineRLHFError,))
    log.error("request failed", extra={"error_id": error_id, "exception": told})
    return error_id
