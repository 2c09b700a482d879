"""The objects of the arena: index, LRU list, storing and finding. Nothing here is for Python; the C functions that other
compiled modules may use are in `shard.pxd`."""
