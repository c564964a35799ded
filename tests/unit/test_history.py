"""What a person sees of a job's history."""

from datetime import UTC, datetime, timedelta

from pacifica.ingest.cli.history import history
from pacifica.ingest.cli.text import local_time
from pacifica.ingest.ports import Event

START = datetime(2026, 11, 28, 7, tzinfo=UTC)


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


def told(*events: tuple[int, str, str]) -> list[tuple[str, str, str]]:
    return history(Event(at=at(second), name=name, text=text) for second, name, text in events)


def wait(second: int, reason: str) -> tuple[int, str, str]:
    return (second, "waiting", f"until {at(second + 10).replace(tzinfo=None)} UTC: {reason}")


def test_waits_for_one_reason_are_one_line() -> None:
    again = [line for second in (2, 20, 40) for line in ((second - 1, "claimed", "w1"), wait(second, "it is away"))]
    assert told((0, "accepted", ""), *again, (60, "claimed", "w2"), (61, "done", "")) == [
        (local_time(at(0)), "accepted", ""),
        (local_time(at(1)), "claimed", "w1"),
        (local_time(at(2)), "waiting", f"3 times, until {local_time(at(50))}: it is away"),
        (local_time(at(60)), "claimed", "w2"),
        (local_time(at(61)), "done", ""),
    ]


def test_another_reason_and_another_event_begin_another_line() -> None:
    lines = told(
        wait(1, "a"), (2, "claimed", "w1"), wait(3, "b"), (4, "claimed", "w1"), (5, "taken over", ""), wait(6, "b")
    )
    assert [name for _, name, _ in lines] == ["waiting", "claimed", "waiting", "claimed", "taken over", "waiting"]
    assert lines[0][2] == f"until {local_time(at(11))}: a"


def test_a_text_that_is_not_ours_is_shown_as_it_is() -> None:
    assert told((1, "waiting", "for better days")) == [(local_time(at(1)), "waiting", "for better days")]


def test_faults_that_are_shown_above_are_not_repeated() -> None:
    faults = "a is wrong\nb is wrong\nc is wrong"
    earlier = "d is wrong\ne is wrong"
    events = [
        Event(at=at(second), name="failed", text=f"open tar: {text}")
        for second, text in enumerate((earlier, faults, faults[:-5], "f"))
    ]
    once = "open tar: a is wrong … and 2 more"
    assert [text for _, _, text in history(events, faults)] == [f"open tar: {earlier}", once, once, "open tar: f"]
    assert history(events[3:], "f")[0][2] == "open tar: f"
