"""The side-by-side benchmark: edgecache, nginx, Varnish and HAProxy as caches of one origin, measured in turns.

Run it with ``python -m loadtests.bench`` (or ``make bench``); docs/benchmark.md says what every row and figure means.

    rows.py        what is measured: a table, one line per row
    targets.py     what edgecache promises in those rows
    server.py      what a server under test is; peers.py and own.py describe the servers
    content.py     the objects and the Zipf sequence (epoll_server.h, origin.c and floor.c are the C side)
    generators.py  wrk and h2load: command lines and the reading of their tables
    procfs.py      CPU, memory and core figures from /proc
    process.py     starting, pinning and stopping what is measured
    verify.py      the proof, before each row, that a hit is a hit and the body right
    measure.py     one turn, and the order of turns
    report.py      medians, ratios, tables, JSON

``python -m loadtests.bench.disk`` measures what the disk tier promises of itself; diskload.py is what it does to it.

``python -m loadtests.bench.purge_edge`` measures what purging costs an edge.

``python -m loadtests.bench.dns`` (or ``make bench-dns``) does the same for GeoDNS, beside gdnsd, Knot and PowerDNS:

    dns.py         arguments, one turn, the order of turns
    dnspeers.py    the servers and how they are configured
    dnsdata.py     the database of networks and the queries, made from one seed
    dnsreport.py   what dnsperf prints, medians, promises, tables
"""
