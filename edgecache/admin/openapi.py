"""The OpenAPI document of the admin API, for tools and people."""

from typing import Any

from edgecache import __version__
from edgecache.admin.wire import PurgeBody


def _json(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _query(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": {"type": "integer"}}


_STRING = {"type": "string"}
_NUMBER = {"type": "number"}
_INTEGER = {"type": "integer"}
_YES_OR_NO = {"type": "boolean"}
_ERROR = {"$ref": "#/components/schemas/Error"}


def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    error = _json(_ERROR, "An error")
    receipt = _object(
        sequence=_INTEGER,
        time=_NUMBER,
        again=_YES_OR_NO,
        waited=_YES_OR_NO,
        complete=_YES_OR_NO,
        edges=_list(_object(edge=_STRING, applied=_YES_OR_NO, duration_s=_NUMBER)),
        away=_list(_STRING),
    )
    record = _object(
        sequence=_INTEGER,
        time=_NUMBER,
        token=_STRING,
        address=_STRING,
        kind=_STRING,
        targets=_INTEGER,
        summary=_STRING,
    )
    status = _object(status=_STRING, detail=_STRING)
    return {
        "openapi": "3.1.0",
        "info": {"title": "edgecache admin API", "version": __version__},
        "security": [{"token": []}, {}],
        "paths": {
            "/healthz": {"get": {"summary": "Is the process alive?", "responses": {"200": _json(status, "Yes")}}},
            "/readyz": {
                "get": {
                    "summary": "May it take traffic?",
                    "responses": {"200": _json(status, "Yes"), "503": _json(status, "No, and why")},
                }
            },
            "/metrics": {
                "get": {
                    "summary": "Prometheus metrics",
                    "responses": {"200": {"description": "Text format 0.0.4", "content": {"text/plain": {}}}},
                }
            },
            "/v1/stats": {
                "get": {"summary": "Figures", "responses": {"200": _json({"type": "object"}, "Nested by subject")}}
            },
            "/v1/explain": {
                "get": {
                    "summary": "What the edge would do with a request, and why; nothing is fetched or changed",
                    "parameters": [
                        {"name": "url", "in": "query", "required": True, "schema": _STRING},
                        {"name": "method", "in": "query", "schema": {"type": "string", "default": "GET"}},
                        {
                            "name": "header",
                            "in": "query",
                            "description": "A field line, such as Accept-Language: de; may be repeated",
                            "schema": {"type": "array", "items": _STRING},
                            "explode": True,
                        },
                    ],
                    "responses": {"200": _json({"type": "object"}, "The verdict and what is stored"), "400": error},
                }
            },
            "/v1/purge": {
                "post": {
                    "summary": "Purge, as one atomic step",
                    "security": [{"token": []}],
                    "parameters": [
                        {
                            "name": "Idempotency-Key",
                            "in": "header",
                            "description": "The same call with the same key is carried out once",
                            "schema": _STRING,
                        }
                    ],
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PurgeBody"}}},
                    },
                    "responses": {
                        "200": _json(receipt, "Done; what each edge says"),
                        **dict.fromkeys(("400", "401", "403", "409", "413", "415", "503"), error),
                    },
                }
            },
            "/v1/purge/{sequence}": {
                "get": {
                    "summary": "What became of a purge",
                    "parameters": [{"name": "sequence", "in": "path", "required": True, "schema": {"type": "integer"}}],
                    "responses": {"200": _json({"type": "object"}, "Which edges have applied it"), "404": error},
                }
            },
            "/v1/audit": {
                "get": {
                    "summary": "Who purged what, newest first",
                    "security": [{"token": []}],
                    "parameters": [_query("before", "Only purges numbered less"), _query("limit", "At most so many")],
                    "responses": {"200": _json(_object(records=_list(record)), "Records"), "401": error, "404": error},
                }
            },
            "/v1/edges": {
                "get": {
                    "summary": "The edges of the fleet, and how far each has come",
                    "responses": {"200": _json({"type": "object"}, "Each edge's position"), "503": error},
                }
            },
            "/v1/openapi.json": {
                "get": {"summary": "This document", "responses": {"200": _json({"type": "object"}, "OpenAPI 3.1")}}
            },
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "PurgeBody": PurgeBody.model_json_schema(),
                "Error": _object(error=_object(code=_STRING, message=_STRING, path=_STRING)),
            },
        },
    }
