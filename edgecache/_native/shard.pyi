"""The objects of the arena: index, validity, storing and finding. Nothing here is for Python; the C functions for other
compiled modules are in `shard.pxd`."""
