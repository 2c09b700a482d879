"""The composition root: the one place that builds objects and wires them together.

`Shared` is made before anything else and, with several processes, before any fork. A `Worker` is what serves clients,
a `Control` what serves the operator; they meet in the arena only, so that they may stand in different processes. `Edge`
is both in one.
"""

from edgecache.app.control import Control
from edgecache.app.edge import Edge
from edgecache.app.shared import Shared, StartError
from edgecache.app.worker import Worker

__all__ = ["Control", "Edge", "Shared", "StartError", "Worker"]
