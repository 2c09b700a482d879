"""The profiles: one module each."""

from loadtests.kit.profile import Profile
from loadtests.profiles import (
    api_microcache,
    flash_crowd,
    origin_outage,
    purge_storm,
    replay,
    restart_warmup,
    slow_readers,
    soak,
    steady,
    video,
)

PROFILES: dict[str, Profile] = {
    module.PROFILE.name: module.PROFILE
    for module in (
        steady,
        flash_crowd,
        purge_storm,
        video,
        api_microcache,
        slow_readers,
        origin_outage,
        restart_warmup,
        replay,
        soak,
    )
}
