import pytest

from edgecache import report


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (3 << 20, "3.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (7 << 40, "7.0 TiB"),
        (9000 << 40, "9000.0 TiB"),
    ],
)
def test_octets(value: float | None, shown: str) -> None:
    assert report.octets(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.25, "250 ms"),
        (1, "1 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (90061, "1 d 1 h"),
        (-30, "30 s"),
    ],
)
def test_spans(seconds: float, shown: str) -> None:
    assert report.span(seconds) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), (0.0123, "0.012"), (1.26, "1.3"), (99.9, "99.9"), (1234.5, "1234")]
)
def test_milliseconds(value: float | None, shown: str) -> None:
    assert report.milliseconds(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(None, "-"), (0.0, "0.0 %"), (0.98765, "98.8 %"), (1.0, "100.0 %")])
def test_percent(value: float | None, shown: str) -> None:
    assert report.percent(value) == shown


def test_a_stranger_s_text_cannot_steer_the_terminal() -> None:
    assert report.plain("a\x1b[2J\x9b\r\nü") == "a\\x1b[2J\\x9b\\r\\nü"


def answer(requests: int, sent: int) -> dict[str, object]:
    return {"requests": {"total": requests}, "bytes": {"sent": sent}}


def test_rates() -> None:
    assert report.rates(answer(10, 100), answer(30, 300), 2.0) == (10.0, 100.0)
    assert report.rates(answer(30, 300), answer(10, 100), 2.0) is None, "it was restarted"
    assert report.rates({}, answer(1, 1), 1.0) is None
    assert report.rates(answer(1, 1), answer(2, 2), 0.0) is None


@pytest.mark.parametrize(
    "figures",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"edge": "e"}, id="name-only"),
        pytest.param({"requests": {}}, id="requests-without-figures"),
        pytest.param({"new": {"nested": {"x": 1}, "list": [1], "text": "[bold]", "none": None, "half": 0.5}}, id="new"),
    ],
)
def test_stats_of_another_version_are_shown_as_far_as_they_go(
    figures: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    report.console().print(report.stats(figures))
    shown = capsys.readouterr().out
    if "new" in figures:
        assert "[bold]" in shown
        assert "0.500" in shown


def test_a_coordinator_s_figures_have_its_subjects_beside_it() -> None:
    figures = {
        "version": "1.2",
        "since": 1_800_000_000.25,
        "log": {"id": "abc", "head": 7, "failing": "no room"},
        "edges": {"connected": 3, "away": 1},
    }
    out = report.console()
    with out.capture() as captured:
        out.print(report.stats({"coordinator": figures}))
    lines = [line.split() for line in captured.get().splitlines() if line.strip()]
    for line in (
        ["coordinator"],
        ["since", "2027-01-15", "08:00:00", "UTC"],
        ["log"],
        ["head", "7"],
        ["failing", "no", "room"],
        ["edges"],
        ["connected", "3"],
        ["away", "1"],
    ):
        assert line in lines
