"""Which connections end if there are too many: never the one of a client that speaks."""

from __future__ import annotations

from hostler_hub.web.listener.connections import Caps, Connection, Connections


class Site:
    """Connections, and which of them were ended."""

    def __init__(self, **caps: int) -> None:
        self.connections = Connections(Caps(**{"open": 100, "waiting": 100, **caps}))
        self.ended: list[Connection] = []

    def come(self, client: str) -> Connection:
        connection = self.connections.admit(client)
        assert connection is not None
        connection.end = lambda: self.ended.append(connection)
        return connection


def test_V19_a_client_with_too_many_silent_connections_loses_its_oldest_one() -> None:
    site = Site(waiting_per_client=3)
    silent = [site.come("bad") for _ in range(3)]
    other = site.come("good")
    newest = site.come("bad")
    assert site.ended == silent[:1]
    assert site.connections.waiting_count == 4
    for each in (*silent, other, newest):
        each.remove()
        each.remove()
    assert (site.connections.waiting_count, site.connections.open_count) == (0, 0)


def test_V19_too_many_of_all_clients_cost_the_one_that_has_most() -> None:
    site = Site(waiting=6, waiting_per_client=100)
    good = site.come("good")
    bad = [site.come("bad") for _ in range(5)]
    site.come("late")
    site.come("later")
    assert site.ended == bad[:2]
    assert good not in site.ended


def test_a_connection_whose_request_is_complete_is_not_ended_by_newcomers() -> None:
    site = Site(waiting_per_client=2)
    busy = site.come("nat")
    busy.serve()
    first, *_ = [site.come("nat") for _ in range(3)]
    assert site.ended == [first]
    busy.wait()  # answered; it is the youngest of those that wait now
    site.come("nat")
    assert busy not in site.ended


def test_an_authenticated_connection_never_waits() -> None:
    site = Site(waiting_per_client=1)
    known = site.come("nat")
    known.authenticate()
    for _ in range(3):
        known.wait()
        site.come("nat")
    assert known not in site.ended


def test_what_descriptors_there_are_goes_to_those_that_speak() -> None:
    site = Site(open=3, waiting_per_client=100)
    silent = site.come("bad")
    for _ in range(3):
        site.come("good").authenticate()
    assert site.ended == [silent]
    assert site.connections.admit("good") is None
    assert site.connections.open_count == 3


def test_caps_fit_the_descriptors() -> None:
    assert Caps.within(10_000, 1024, 256) == Caps(10_000, 1024, 256)
    assert Caps.within(100, 1024, 256) == Caps(100, 50, 50)
    assert Caps.within(1, 1024, 256) == Caps(1, 1, 1)
