"""The purge requests of other products, so that their clients work unchanged: one module per product.

Each module says in a table which requests are its own, turns such a request into purge orders, and knows how its
clients expect to hear of success and of every kind of failure. None of them does I/O or sees a socket: they speak
`http.Request` and `http.Response`, so that the admin API, the coordinator and the public listener can all answer them.
"""
