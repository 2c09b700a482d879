"""The OpenAPI document of the coordinator."""

from typing import Any

from edgecache.admin.openapi import document as admin_document

_STRING = {"type": "string"}
_INTEGER = {"type": "integer"}
_NUMBER = {"type": "number"}
_YES_OR_NO = {"type": "boolean"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _json(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_EDGE = _object(
    edge=_STRING,
    connected=_YES_OR_NO,
    instances=_INTEGER,
    position=_INTEGER,
    lag=_INTEGER,
    version=_STRING,
    since=_NUMBER,
    address=_STRING,
)


def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    made = admin_document()
    paths = made["paths"]
    error = _json({"$ref": "#/components/schemas/Error"}, "An error")
    made["info"]["title"] = "edgecache coordinator API"
    del paths["/v1/explain"]
    purge = paths["/v1/purge"]["post"]
    purge["responses"] |= {"429": error}
    found = _object(
        sequence=_INTEGER,
        time=_NUMBER,
        order={"type": "object"},
        edges=_list(_object(edge=_STRING, applied=_YES_OR_NO)),
        away=_list(_STRING),
    )
    paths["/v1/purge/{sequence}"] = {
        "get": {
            "summary": "A purge, and which connected edges have applied it",
            "parameters": [{"name": "sequence", "in": "path", "required": True, "schema": _INTEGER}],
            "responses": {"200": _json(found, "The purge"), "404": error},
        }
    }
    edges = _object(log=_STRING, floor=_INTEGER, head=_INTEGER, edges=_list(_EDGE))
    paths["/v1/edges"] = {
        "get": {"summary": "The edges, and how far each is", "responses": {"200": _json(edges, "Edges by name")}}
    }
    paths["/v1/audit"]["get"]["responses"] |= {"403": error}
    paths["/v1/subscribe"] = {
        "get": {"summary": "An edge's subscription, over a WebSocket", "responses": {"101": {"description": "Yes"}}}
    }
    return made
