"""Which object goes when a shard needs room: LRU, SIEVE, S3-FIFO. Nothing here is for Python; see `eviction.pxd`."""
