"""OAuth 1.0a: the examples of RFC 5849 and of X's documentation."""

from __future__ import annotations

import pytest

from services.intake.channels.oauth1 import Credentials, authorization, signature


def test_the_rfcs_example_of_a_signed_request() -> None:
    # RFC 5849, 1.2: the request for the photo.
    parameters = [
        ("file", "vacation.jpg"),
        ("size", "original"),
        ("oauth_consumer_key", "dpf43f3p2l4k3l03"),
        ("oauth_token", "nnch734d00sl2jdk"),
        ("oauth_signature_method", "HMAC-SHA1"),
        ("oauth_timestamp", "137131202"),
        ("oauth_nonce", "chapoH"),
    ]
    url = "http://photos.example.net/photos"
    signed = signature("GET", url, parameters, "kd94hf93k423kf44", "pfkkdhi9sl3r4s00")
    assert signed == "MdpQcU8iPSUjWoN/UDMsK2sui9I="


CREDENTIALS = Credentials(
    "xvz1evFS4wEEPTGEFPHBog",
    "kAcSOqF21Fu85e7zjz7ZN2U4ZRhfV3WpwPAoE3Z7kBw",
    "370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb",
    "LswwdoUaIvS8ltyTt5jkRh4J50vUPVVHtR2YPi5kE",
)


def header(url: str) -> str:
    return authorization(
        CREDENTIALS,
        "post",
        url,
        nonce="kYjzVBB8Y0ZFabxSWbWovY3uYSQ2pTgmZeNu2VS4cg",
        timestamp=1318622958,
        parameters={"include_entities": "true", "status": "Hello Ladies + Gentlemen, a signed OAuth request!"},
    )


def test_xs_example_of_a_header() -> None:
    # Of "Creating a signature" and "Authorizing a request" of X's documentation.
    assert header("https://api.twitter.com/1.1/statuses/update.json") == (
        'OAuth oauth_consumer_key="xvz1evFS4wEEPTGEFPHBog", '
        'oauth_nonce="kYjzVBB8Y0ZFabxSWbWovY3uYSQ2pTgmZeNu2VS4cg", '
        'oauth_signature="hCtSmYh%2BiHYCEqBWrE7C7hYmtUk%3D", '
        'oauth_signature_method="HMAC-SHA1", oauth_timestamp="1318622958", '
        'oauth_token="370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb", oauth_version="1.0"'
    )


@pytest.mark.parametrize(
    "url",
    ["HTTPS://API.Twitter.com/1.1/statuses/update.json", "https://api.twitter.com:443/1.1/statuses/update.json"],
)
def test_one_address_in_other_letters_is_signed_alike(url: str) -> None:
    assert header(url) == header("https://api.twitter.com/1.1/statuses/update.json")


def test_another_port_is_another_address() -> None:
    url = "https://api.twitter.com:8443/1.1/statuses/update.json"
    assert header(url) != header("https://api.twitter.com/1.1/statuses/update.json")
