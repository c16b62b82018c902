"""What interop-tls asks of the listener on the given port; exits 1 with the first answer that is wrong."""

import asyncio
import ssl
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from sslyze import (
    ScanCommand,
    Scanner,
    ServerNetworkConfiguration,
    ServerNetworkLocation,
    ServerScanRequest,
)

PORT = int(sys.argv[1])
NAME = "api.test"
WEAK = ("RC4", "DES", "NULL", "EXPORT", "anon", "MD5", "CBC", "TLS_RSA_")


def check(what, holds, found=""):
    print(f"{'√' if holds else '×'} {what}{f': {found}' if found != '' else ''}")
    if not holds:
        sys.exit(1)


def scan():
    location = ServerNetworkLocation(hostname=NAME, ip_address="127.0.0.1", port=PORT)
    suites = {
        "SSL 2.0": ScanCommand.SSL_2_0_CIPHER_SUITES,
        "SSL 3.0": ScanCommand.SSL_3_0_CIPHER_SUITES,
        "TLS 1.0": ScanCommand.TLS_1_0_CIPHER_SUITES,
        "TLS 1.1": ScanCommand.TLS_1_1_CIPHER_SUITES,
        "TLS 1.2": ScanCommand.TLS_1_2_CIPHER_SUITES,
        "TLS 1.3": ScanCommand.TLS_1_3_CIPHER_SUITES,
    }
    holes = {
        ScanCommand.HEARTBLEED: "is_vulnerable_to_heartbleed",
        ScanCommand.OPENSSL_CCS_INJECTION: "is_vulnerable_to_ccs_injection",
        ScanCommand.SESSION_RENEGOTIATION: "is_vulnerable_to_client_renegotiation_dos",
        ScanCommand.TLS_COMPRESSION: "supports_compression",
    }
    request = ServerScanRequest(
        server_location=location,
        network_configuration=ServerNetworkConfiguration(tls_server_name_indication=NAME),
        scan_commands={*suites.values(), *holes},
    )
    scanner = Scanner()
    scanner.queue_scans([request])
    (result,) = scanner.get_results()
    check("the scanner reached the listener", result.scan_result is not None)

    def answer(command):
        attempt = getattr(result.scan_result, command.value)
        check(f"scanned: {command.value}", attempt.result is not None, attempt.status.value)
        return attempt.result

    for version, command in suites.items():
        accepted = [it.cipher_suite.name for it in answer(command).accepted_cipher_suites]
        if version in ("TLS 1.2", "TLS 1.3"):
            check(f"{version} has suites", bool(accepted), ", ".join(accepted))
            check(f"{version} has no weak suite", not [it for it in accepted if any(weak in it for weak in WEAK)])
        else:
            check(f"{version} is refused", not accepted, ", ".join(accepted))
    for command, vulnerable in holes.items():
        check(f"not {vulnerable}", not getattr(answer(command), vulnerable))


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.waiting = {}

    def quic_event_received(self, event):
        for it in self.http.handle_event(event):
            if isinstance(it, (HeadersReceived, DataReceived)) and it.stream_id in self.waiting:
                head, body, done = self.waiting[it.stream_id]
                if isinstance(it, HeadersReceived):
                    head.extend(it.headers)
                else:
                    body.extend(it.data)
                if it.stream_ended and not done.done():
                    done.set_result(None)

    async def ask(self, method, path, body=b""):
        stream = self._quic.get_next_available_stream_id()
        head, answer, done = [], bytearray(), self._loop.create_future()
        self.waiting[stream] = (head, answer, done)
        fields = [(b":method", method), (b":scheme", b"https"), (b":authority", NAME.encode()), (b":path", path)]
        if body:
            fields.append((b"content-length", str(len(body)).encode()))
        self.http.send_headers(stream, fields, end_stream=not body)
        if body:
            self.http.send_data(stream, body, end_stream=True)
        self.transmit()
        await asyncio.wait_for(done, 20)
        return int(dict(head)[b":status"]), bytes(answer)


async def http3():
    tickets = []
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE)
    configuration.server_name = NAME

    async def connected(configuration):
        async with connect(
            "127.0.0.1",
            PORT,
            configuration=configuration,
            create_protocol=Client,
            session_ticket_handler=tickets.append,
        ) as client:
            status, body = await client.ask(b"GET", b"/")
            check("HTTP/3 GET", (status, body) == (200, b"hello"), f"{status} {body!r}")
            status, _ = await client.ask(b"POST", b"/", b"x" * 100_000)
            check("HTTP/3 POST of 100 kB", status == 200, status)
            client.change_connection_id()
            await client.ping()
            status, _ = await client.ask(b"GET", b"/")
            check("HTTP/3 behind another connection id", status == 200, status)
            return client._quic.tls.session_resumed

    check("the first session is a new one", not await connected(configuration))
    check("a ticket was given", bool(tickets))
    configuration.session_ticket = tickets[0]
    check("the second session resumes", await connected(configuration))


scan()
asyncio.run(http3())
