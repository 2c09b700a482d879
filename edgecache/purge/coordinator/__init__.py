"""The purge coordinator: one call reaches every edge, and the answer says which have applied it (DESIGN §7).

hub         edges and how far each has come: broadcasting, catching up, waiting for acknowledgements
tokens      who may do what: tokens with scopes, kept as hashes in a file
limits      how often each may
service     what callers may ask: puts these together with the log
api         the same over HTTP, and the edges' subscriptions over WebSockets
server      the process: sockets, TLS, signals
"""
