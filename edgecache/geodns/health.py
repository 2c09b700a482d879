"""PURE. Whether a PoP may be in answers: what checks, the coordinator and people said, counted, with hysteresis.

Each `PopHealth` is told what was seen and says what follows. It also says for how long it cannot change its mind, from
which answers get their time to live.
"""

import math
from dataclasses import dataclass

from edgecache.config.geodns import CheckConfig, CoordinatorConfig

SLACK_S = 0.9
"""A dead PoP is out within interval × fall + 1 s: what is left of that second is for telling the workers."""


def period_s(check: CheckConfig) -> float:
    """From one check to the next at most, so that the promise holds although the last failure may take all of its
    timeout. Checks of a PoP do not overlap: one that takes longer than the period puts the next one off."""
    within_s = check.interval_s * check.fall + SLACK_S
    period = min(check.interval_s, (within_s - check.timeout_s) / check.fall)
    if period < check.timeout_s:
        period = min(check.timeout_s, within_s - check.fall * check.timeout_s)
    return period


@dataclass(slots=True)
class Streak:
    """One source's opinion: it changes after so many times the other in a row."""

    rise: int
    fall: int
    period_s: float
    """The shortest time between two looks."""
    up: bool = True
    run: int = 0
    """How many times in a row something else than `up` was seen."""
    known: bool = False
    """Has anything been seen? The first look decides by itself."""

    def seen(self, good: bool) -> None:
        if not self.known:
            self.up, self.known, self.run = good, True, 0
        elif good == self.up:
            self.run = 0
        else:
            self.run += 1
            if self.run >= (self.fall if self.up else self.rise):
                self.up, self.run = good, 0

    @property
    def settled_s(self) -> float:
        """The next look may come at once; those after it do not."""
        return ((self.fall if self.up else self.rise) - self.run - 1) * self.period_s


@dataclass(slots=True)
class PopHealth:
    """All opinions of one PoP."""

    name: str
    checked: Streak | None
    """None: nobody looks."""
    connected: Streak | None
    """By the coordinator's list. None: it does not know the PoP, or is not asked."""
    pushed: bool | None = None
    """By the admin API, from whoever checks elsewhere. None: nothing was said."""
    drained: str = ""
    """Why it is drained: "config", "file", "api"; empty: it is not."""
    detail: str = ""
    """What the last check saw."""

    @property
    def usable(self) -> bool:
        streaks = all(streak.up for streak in (self.checked, self.connected) if streak is not None)
        return not self.drained and self.pushed is not False and streaks

    @property
    def settled_s(self) -> float:
        """Infinite where only a person can change it."""
        if self.drained or self.pushed is False:
            return math.inf
        streaks = [streak for streak in (self.checked, self.connected) if streak is not None]
        if self.usable:
            return min((streak.settled_s for streak in streaks), default=math.inf)
        # Everyone who is against it has to come round.
        return max((streak.settled_s for streak in streaks if not streak.up), default=math.inf)

    @property
    def why(self) -> str:
        """In a word: what keeps it out, or "up"."""
        if self.drained:
            return f"drained by {self.drained}"
        if self.pushed is False:
            return "reported down"
        if self.checked is not None and not self.checked.up:
            return "check fails"
        if self.connected is not None and not self.connected.up:
            return "no edge connected and current"
        return "up"


def pop_health(name: str, check: CheckConfig, coordinator: CoordinatorConfig | None) -> PopHealth:
    checked = None
    if check.type != "none":
        checked = Streak(check.rise, check.fall, period_s(check) * (1 - check.jitter))
    connected = None
    if coordinator is not None:
        connected = Streak(1, coordinator.fall, coordinator.interval_s)
    return PopHealth(name, checked, connected)
