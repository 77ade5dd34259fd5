"""Receivers that use the official libraries believe us, and nobody else."""

import base64
import time

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from services.notifier.signing import signature_headers

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
bodies = st.text(st.characters(exclude_categories=["Cs"]), max_size=200).map(
    lambda text: b'{"object":"event","text":' + repr(text).encode() + b"}"
)


@given(st.dictionaries(st.text(), st.text()).map(lambda value: value))
def test_both_libraries_verify_what_we_sign(value: dict[str, str]) -> None:
    import json

    body = json.dumps({"id": "evt_1", "object": "event", "data": value}).encode()
    headers = signature_headers([SECRET], "evt_1", int(time.time()), body)
    assert Webhook(SECRET).verify(body, headers)["data"] == value
    event = stripe.Webhook.construct_event(body, headers["Stripe-Signature"], SECRET)
    assert event.id == "evt_1"


def test_a_changed_body_is_refused_by_both() -> None:
    headers = signature_headers([SECRET], "evt_1", int(time.time()), b'{"amount":1}')
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(b'{"amount":2}', headers)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(b'{"amount":2}', headers["Stripe-Signature"], SECRET)


def test_the_signature_is_that_of_the_specification() -> None:
    # The example of https://www.standardwebhooks.com
    headers = signature_headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_during_a_rotation_either_secret_verifies_and_no_other() -> None:
    other, stranger = (f"whsec_{base64.b64encode(bytes([n] * 32)).decode()}" for n in (1, 2))
    body = b'{"id": "evt_1", "object": "event"}'
    headers = signature_headers([other, SECRET], "evt_1", int(time.time()), body)
    for secret in (SECRET, other):
        assert Webhook(secret).verify(body, headers)["id"] == "evt_1"
        assert stripe.Webhook.construct_event(body, headers["Stripe-Signature"], secret).id
    with pytest.raises(WebhookVerificationError):
        Webhook(stranger).verify(body, headers)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body, headers["Stripe-Signature"], stranger)
