"""A server that talks as a test says, byte by byte, and attempts to talk to it."""

import asyncio
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.notifier.attempt import Attempt
from services.notifier.policy import Result
from services.notifier.sender import Sender
from tests.telling import SECRET

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
BODY = '{"id":"evt_1","type":"payment.completed","data":{"object":{"id":"pay_1"}}}'
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def attempt(url: str, body: str = BODY) -> Attempt:
    """An attempt to send `body` to `url`."""
    return Attempt(
        account_id="acct",
        delivery_id="dlv_1",
        number=1,
        lease_until=datetime.now(UTC),
        event_id="evt_1",
        body=body,
        endpoint_id="we_1",
        url=url,
        secrets=[SECRET],
        custom_headers=None,
        failing_since=None,
    )


async def send(sender: Sender, url: str, **custom: str) -> Result:
    """Make an attempt with `custom` headers."""
    return await sender.send(attempt(url), custom)


class Server:
    """A server that talks as a test says, byte by byte."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self.connections = 0
        self.requests = 0
        self.written = 0

    async def open(
        self, talk: Talk, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> str:
        """Listen on `host`; the URL by which it is reached."""

        async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            try:
                await talk(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        self._server = await asyncio.start_server(counted, host, 0, ssl=context)
        scheme, name = "https" if context else "http", f"[{host}]" if ":" in host else host
        return f"{scheme}://{name}:{self._server.sockets[0].getsockname()[1]}/hook"

    async def hear(self, reader: asyncio.StreamReader) -> str:
        """Read one request; its body."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        self.requests += 1
        return body.decode()

    def close(self) -> None:
        """Listen no longer."""
        if self._server is not None:
            self._server.close()


def self_signed(file: Path) -> ssl.SSLContext:
    """A server's context with a certificate for localhost that nobody but itself vouches for; key
    and certificate lie in `file`, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(secret + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
