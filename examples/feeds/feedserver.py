#!/usr/bin/env python3
"""A server of feeds: streams earthquakes as they were measured, one feed for each network.

A client connects and writes one line, and gets rows from then on:

    feed ci from 120
                            ok 386              386 rows in all
                            row 120 ci37868143,2018-02-07T01:26:13.840Z,2,...
                            row 121 ...
                            idle                nothing new, but still here

It keeps no state about its clients: what has arrived is theirs to know.
"""

import argparse
import asyncio
import os
import signal
import socket

import quakes

IDLE_EVERY = 2.0


async def serve_client(reader, writer, rows, seconds):
    try:
        words = (await asyncio.wait_for(reader.readline(), 10)).decode("ascii", "replace").split()
        if len(words) != 4 or words[0] != "feed" or words[2] != "from" or not words[3].isdigit():
            writer.write(b"error say: feed NAME from OFFSET\n")
        elif words[1] not in rows:
            names = " ".join(sorted(rows))
            writer.write(f"error there is no feed {words[1]}; there are {names}\n".encode())
        else:
            await stream(writer, rows[words[1]], int(words[3]), seconds)
        await writer.drain()
    except (ConnectionError, asyncio.TimeoutError, ValueError):
        pass  # The client went away or said nothing sensible; it will come again.
    finally:
        writer.close()


async def stream(writer, rows, offset, seconds):
    writer.write(f"ok {len(rows)}\n".encode())
    clock = asyncio.get_running_loop().time
    period = seconds / (len(rows) + 1)
    due = clock() + period
    for number in range(offset, len(rows)):
        while (wait := due - clock()) > 0:
            await asyncio.sleep(min(wait, IDLE_EVERY))
            if due - clock() > 0:
                writer.write(b"idle\n")
                await writer.drain()
        writer.write(f"row {number} {rows[number]}\n".encode())
        await writer.drain()
        due += period
    while True:
        await asyncio.sleep(IDLE_EVERY)
        writer.write(b"idle\n")
        await writer.drain()


def tell_ready():
    """READY=1 for whoever started us, as programs under systemd say it too."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", address)


async def main():
    parser = argparse.ArgumentParser(description="Streams the feeds of data/earthquakes.csv.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7480)
    parser.add_argument(
        "--seconds",
        type=float,
        default=float(os.environ.get("FEEDS_SECONDS") or 75),
        help="how long every feed takes from its first row to its last (default 75)",
    )
    options = parser.parse_args()
    rows = quakes.feeds()
    clients = set()

    def connected(reader, writer):
        client = asyncio.create_task(serve_client(reader, writer, rows, options.seconds))
        clients.add(client)
        client.add_done_callback(clients.discard)

    server = await asyncio.start_server(connected, options.host, options.port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    total = sum(map(len, rows.values()))
    print(f"{len(rows)} feeds with {total} rows at {options.host}:{options.port}", flush=True)
    tell_ready()
    await stop.wait()
    server.close()
    for client in list(clients):
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
