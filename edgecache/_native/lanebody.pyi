"""Bodies that the fast lane sends from where they lie, pinned in the arena or in a file, as fast as clients read."""

class BodySender:
    """The part of a connection that sends bodies; `fastlane.FastConnection` is the whole."""

    busy: bool
    """A large body is being sent from here."""
    used: bool
    """Something was answered here."""
    last_at: float
    """When, by the wall clock."""
