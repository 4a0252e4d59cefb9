"""The courier: whoever hands over does not wait, and what comes meanwhile goes together."""

import threading

from shared.machinery.courier import Courier


class Door:
    """Takes deliveries; shut, it keeps the courier waiting."""

    def __init__(self) -> None:
        self.deliveries: list[list[int]] = []
        self.open = threading.Event()
        self.rang = threading.Event()

    def take(self, parcels: list[int]) -> None:
        self.rang.set()
        assert self.open.wait(10)
        self.deliveries.append(parcels)


def test_what_comes_while_the_courier_is_out_goes_together_and_in_order():
    door = Door()
    courier = Courier("test", door.take)
    courier.send(1)
    assert door.rang.wait(10)
    for parcel in (2, 3, 4):
        courier.send(parcel)

    door.open.set()

    assert courier.close()
    assert door.deliveries == [[1], [2, 3, 4]]


def test_too_much_that_waits_loses_the_oldest():
    door = Door()
    courier = Courier("test", door.take)
    courier.send(-1)
    assert door.rang.wait(10)
    for parcel in range(10_003):
        courier.send(parcel)

    door.open.set()
    courier.close()

    assert door.deliveries == [[-1], list(range(3, 10_003))]


def test_a_courier_who_never_went_closes_at_once():
    door = Door()

    assert Courier("test", door.take).close()
    assert door.deliveries == []


def test_a_courier_who_is_still_out_says_so():
    door = Door()
    courier = Courier("test", door.take)
    courier.send(1)
    assert door.rang.wait(10)

    assert not courier.close(within_s=0.01)
    door.open.set()
    assert courier.close()
