"""One hub's notifications: the recipients of incidents, and the outbox with its channels."""

from __future__ import annotations

from collections.abc import Sequence

from hostler_hub.notify.mail import Mail
from hostler_hub.notify.outbox import Outbox
from hostler_hub.notify.templates import Templates
from hostler_hub.notify.webhook import Webhook
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.secrets import Secrets
from hostler_hub.runtime.settings import Settings
from hostler_hub.store.engine import Store
from hostler_hub.workers.incidents import Alarms, Recipient
from hostler_hub.workers.registry import Entry


class Notifier:
    """Decides who is notified. ``defaults`` receive every incident; a worker's definition may add
    recipients.
    """

    def __init__(
        self, settings: Settings, store: Store, clock: Clock, hub_id: str, secrets: Secrets
    ) -> None:
        notify = settings.notify
        hub = {"id": hub_id, "url": settings.public_url.rstrip("/") or settings.url}
        mail = Mail(notify.smtp, secrets, Templates(notify.templates, hub), clock)
        webhook = Webhook(notify.webhooks, secrets, clock, hub)
        self.outbox = Outbox(
            store,
            clock,
            {"mail": mail, "webhook": webhook},
            mails_per_hour=notify.mails_per_hour,
        )
        self.alarms = Alarms(self.recipients, self.outbox.wake)
        self.defaults = tuple(
            [Recipient("mail", address) for address in notify.mail]
            + [Recipient("webhook", name) for name in notify.webhooks.urls]
        )

    def recipients(self, entry: Entry) -> Sequence[Recipient]:
        """The recipients of this worker's incidents, each once."""
        named = entry.definition.notify_on_missing
        own = [Recipient("mail", address) for address in named]
        return tuple(dict.fromkeys((*own, *self.defaults)))
