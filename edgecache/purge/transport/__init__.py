"""The edge's connection to a coordinator: a `Feed` (purge/bus) over a WebSocket."""
