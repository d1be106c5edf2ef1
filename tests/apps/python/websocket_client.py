#!/usr/bin/env python3
"""WebSocket in another language: the `websockets` library against the sample's /echo.

    websocket_client.py ws://HOST:PORT/echo [--silence SECONDS] [--ca FILE]

Each check prints one line. The first one that fails ends the program with 1.
"""

import argparse
import asyncio
import ssl

import websockets
from websockets.asyncio.client import connect

MEBIBYTE = 1 << 20


def expect(condition, what):
    if not condition:
        raise SystemExit(f"failed: {what}")


async def text(socket):
    for message in ("hello", "", "grüße, 世界"):
        await socket.send(message)
        expect(await socket.recv() == message, f"text: {message!r} came back changed")
    return "three texts come back"


async def binary(socket):
    message = bytes(range(256))
    await socket.send(message)
    expect(await socket.recv() == message, "binary: it came back changed")
    return "256 bytes come back"


async def fragments(socket):
    await socket.send(["in ", "three ", "frames"])
    expect(await socket.recv() == "in three frames", "fragments: they came back changed")
    return "a text in three frames comes back whole"


async def ping(socket):
    took = await asyncio.wait_for(await socket.ping(b"are you there"), 20)
    return f"answered after {took * 1000:.1f} ms"


async def big(socket):
    message = bytes(i * 7 & 0xFF for i in range(MEBIBYTE))
    await socket.send(message)
    expect(await socket.recv() == message, "big: 1 MiB came back changed")
    return "1 MiB comes back"


async def silence(socket, seconds):
    await asyncio.sleep(seconds)
    await socket.send("still here")
    expect(await socket.recv() == "still here", "silence: the connection has changed")
    return f"still there after {seconds:g} s without a byte"


async def close_by_server(open_socket):
    async with open_socket() as socket:
        await socket.send("close 4001 enough of this")
        try:
            await socket.recv()
            expect(False, "close: a message came instead")
        except websockets.ConnectionClosed as closed:
            got = closed.rcvd
            expect(got is not None and (got.code, got.reason) == (4001, "enough of this"), f"close: {closed}")
    return "the server's code 4001 and its reason arrive"


async def close_by_client(open_socket):
    socket = await open_socket()
    await socket.close(4002, "my own")
    expect(socket.close_code == 4002, f"close: the server answered {socket.close_code}")
    return "the client's code 4002 is answered"


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--silence", type=float, default=0, help="seconds without a byte (default 0)")
    parser.add_argument("--ca", help="PEM file of the CA of a TLS server")
    arguments = parser.parse_args()
    options = {"ping_interval": None, "max_size": 16 * MEBIBYTE, "proxy": None}
    if arguments.ca:
        options["ssl"] = ssl.create_default_context(cafile=arguments.ca)

    def open_socket():
        return connect(arguments.url, **options)

    async with open_socket() as socket:
        for check in (text, binary, fragments, ping, big):
            print(f"{check.__name__}: {await asyncio.wait_for(check(socket), 60)}", flush=True)
        if arguments.silence:
            print(f"silence: {await silence(socket, arguments.silence)}", flush=True)
    for check in (close_by_server, close_by_client):
        print(f"{check.__name__}: {await asyncio.wait_for(check(open_socket), 60)}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
