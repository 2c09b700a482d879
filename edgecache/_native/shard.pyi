"""The objects of the arena: index, LRU list, storing and finding. Nothing here is for Python; the C functions for other
compiled modules are in `shard.pxd`."""
