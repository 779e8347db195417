"""What HOSTLER_SMTP_* and HOSTLER_NOTIFY_* may say."""

from __future__ import annotations

import pytest

from hostler_hub.errors import SettingsError
from hostler_hub.runtime.notify_settings import NotifySettings, webhook_name
from hostler_hub.runtime.secrets import SecretRef

SMTP = {"HOSTLER_SMTP_HOST": "mail.example.org", "HOSTLER_SMTP_FROM": "hub@example.org"}
HOOK = {
    "HOSTLER_NOTIFY_WEBHOOKS": "https://hooks.example.org/T0/s3cr3t",
    "HOSTLER_NOTIFY_WEBHOOK_SECRET": "file:hook",
}


def test_nothing_set_tells_nobody() -> None:
    assert NotifySettings.from_environment({}) == NotifySettings()


def test_everything_set() -> None:
    made = NotifySettings.from_environment(
        {
            **SMTP,
            **HOOK,
            "HOSTLER_SMTP_TLS": "tls",
            "HOSTLER_SMTP_USER": "hub",
            "HOSTLER_SMTP_PASSWORD": "env:HOSTLER_SECRET_SMTP",
            "HOSTLER_NOTIFY_MAIL": "ann@example.org, ben@example.org ann@example.org",
            "HOSTLER_NOTIFY_WEBHOOK_ALLOW": "10.0.0.0/8,intra.example.org",
            "HOSTLER_NOTIFY_MAILS_PER_HOUR": "5",
        }
    )
    assert made.mail == ("ann@example.org", "ben@example.org")
    assert (made.smtp.port, made.smtp.password) == (465, SecretRef(env="HOSTLER_SECRET_SMTP"))
    (name,) = made.webhooks.urls
    assert name.startswith("hooks.example.org#")
    assert "s3cr3t" not in name
    assert made.webhooks.allow == ("10.0.0.0/8", "intra.example.org")
    assert made.mails_per_hour == 5


def test_two_webhooks_of_one_host_have_names_of_their_own() -> None:
    assert webhook_name("https://h/a") != webhook_name("https://h/b")


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"HOSTLER_NOTIFY_MAIL": "ann@example.org"}, "notify_mail: needs smtp_host"),
        ({**SMTP, "HOSTLER_NOTIFY_MAIL": "ann"}, "notify_mail: 'ann'"),
        ({**SMTP, "HOSTLER_SMTP_FROM": ""}, "smtp_from"),
        ({**SMTP, "HOSTLER_SMTP_FROM": "a@b\r\nBcc: c@d"}, "smtp_from"),
        ({**SMTP, "HOSTLER_SMTP_HOST": "mail example"}, "smtp_host"),
        ({**SMTP, "HOSTLER_SMTP_PORT": "0"}, "smtp_port"),
        ({**SMTP, "HOSTLER_SMTP_PORT": "x"}, "smtp_port"),
        ({**SMTP, "HOSTLER_SMTP_TLS": "ssl"}, "smtp_tls"),
        ({**SMTP, "HOSTLER_SMTP_USER": "hub"}, "smtp_user"),
        ({**SMTP, "HOSTLER_SMTP_PASSWORD": "hunter2"}, "smtp_password"),
        ({**SMTP, "HOSTLER_SMTP_PASSWORD": "file:../hunter2"}, "smtp_password"),
        (
            {
                **SMTP,
                "HOSTLER_SMTP_USER": "hub",
                "HOSTLER_SMTP_PASSWORD": "file:x",
                "HOSTLER_SMTP_TLS": "none",
            },
            "smtp_tls: none would carry",
        ),
        ({**HOOK, "HOSTLER_NOTIFY_WEBHOOK_SECRET": ""}, "notify_webhook_secret"),
        ({**HOOK, "HOSTLER_NOTIFY_WEBHOOK_SECRET": "hunter2"}, "notify_webhook_secret"),
        ({**HOOK, "HOSTLER_NOTIFY_WEBHOOKS": "http://h/hunter2"}, "notify_webhooks: number 1"),
        ({**HOOK, "HOSTLER_NOTIFY_WEBHOOKS": "https://u:hunter2@h/"}, "notify_webhooks"),
        ({**HOOK, "HOSTLER_NOTIFY_WEBHOOKS": "https://h:x/hunter2"}, "notify_webhooks"),
        ({**HOOK, "HOSTLER_NOTIFY_WEBHOOK_ALLOW": "10.0.0.0/40"}, "notify_webhook_allow"),
        ({"HOSTLER_NOTIFY_MAILS_PER_HOUR": "0"}, "notify_mails_per_hour"),
    ],
)
def test_wrong_values_are_one_line_that_names_them(environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        NotifySettings.from_environment(environ)
    message = str(caught.value)
    assert message.startswith(named)
    assert "\n" not in message
    assert "hunter2" not in message
