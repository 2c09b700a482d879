from edgecache.purge.coordinator import seldom
from edgecache.purge.coordinator.seldom import Seldom


def test_a_line_is_said_once_in_a_while() -> None:
    now = 0.0
    says = Seldom(every_s=60, clock=lambda: now)
    assert [says.may("a"), says.may("b"), says.may("a")] == [True, True, False]
    now = 59.0
    assert not says.may("a")
    now = 60.0
    assert says.may("a")
    assert not says.may("a")
    assert says.may("b")


def test_no_more_than_so_many_are_said() -> None:
    now = 0.0
    says = Seldom(every_s=60, clock=lambda: now)
    assert sum(says.may(str(i)) for i in range(1000)) == seldom.MOST
    now = 61.0
    assert says.may("999")
