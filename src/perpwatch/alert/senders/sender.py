"""What a channel must be able to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from perpwatch.alert.card import Card
from perpwatch.alert.notice import Notice
from perpwatch.alert.turns import Turns


class Sender(Protocol):
    """Carries cards to one destination: one chat or topic, one address, one webhook.

    It neither queues nor tries again: :mod:`perpwatch.app.delivery` does, for all channels alike. It takes a turn for
    each call to its service, raises :class:`~perpwatch.errors.DeliveryError` and nothing else, and may be cancelled at
    any time.
    """

    destination: str  # under which its calls are counted among those of its service
    turns: Turns  # of the service; senders that share a service share them
    can_edit: bool  # a later card of a thread takes the place of the earlier one
    takes_pictures: bool  # worth drawing one

    async def send(self, card: Card, notices: Sequence[Notice]) -> str:
        """Show a new message; returns when the channel has acknowledged it.

        Args:
            notices: what the card tells; several when it is a digest. Their keys let a receiver recognise repetitions.
        Returns:
            A receipt by which :meth:`edit` finds the message again; empty where there is none.
        Raises:
            DeliveryFailed: worth another try.
            DeliveryRefused: the same again will be refused again.
        """
        ...

    async def edit(self, receipt: str, card: Card, notices: Sequence[Notice]) -> None:
        """Replace a message that was sent; the same twice does no harm. Only called where ``can_edit``.

        Raises:
            DeliveryFailed: worth another try.
            DeliveryRefused: the message is gone, or can no longer be edited.
        """
        ...

    async def close(self) -> None:
        """Give back sockets."""
        ...
