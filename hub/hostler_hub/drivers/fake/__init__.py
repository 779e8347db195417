"""Driver ``fake``: instances in the hub's own process, with configurable faults, for tests."""

from hostler_hub.drivers.fake.driver import FakeDriver

__all__ = ["FakeDriver"]
