"""names.py ADDRESS LOG: a DNS server for verify.sh that knows one name, localhost.sluice.test, and gives it only over TCP.

What arrives by UDP is answered with "truncated", and the name has an IPv6 address before the IPv4 one, where nobody listens:
so a client gets there only with search domains, TCP and both families.
"""
import socket
import struct
import sys
import threading

NAME = "localhost.sluice.test."
ADDRESSES = {1: socket.inet_aton("127.0.0.1"), 28: socket.inet_pton(socket.AF_INET6, "::1")}


def answer(query, way, log):
    at, name = 12, ""
    while query[at]:
        name += query[at + 1 : at + 1 + query[at]].decode().lower() + "."
        at += query[at] + 1
    kind = struct.unpack(">H", query[at + 1 : at + 3])[0]
    data = ADDRESSES.get(kind) if name == NAME else None
    truncated = way == "udp" and data is not None
    code = 0 if name == NAME else 3
    records = b""
    if data and not truncated:
        records = b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data
    print(way, name, {1: "A", 28: "AAAA"}.get(kind, kind), "truncated" if truncated else "answered" if data else "none", file=log, flush=True)
    flags = 0x8180 | code | (0x0200 if truncated else 0)
    return query[:2] + struct.pack(">HHHHH", flags, 1, 1 if records else 0, 0, 0) + query[12 : at + 5] + records


def stream(listener, log):
    while True:
        client, _ = listener.accept()
        with client:
            head = client.recv(2, socket.MSG_WAITALL)
            while len(head) == 2:
                said = answer(client.recv(struct.unpack(">H", head)[0], socket.MSG_WAITALL), "tcp", log)
                client.sendall(struct.pack(">H", len(said)) + said)
                head = client.recv(2, socket.MSG_WAITALL)


def main():
    address, log = sys.argv[1], open(sys.argv[2], "w")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, 53))
    listener.listen(8)
    packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    packets.bind((address, 53))
    threading.Thread(target=stream, args=(listener, log), daemon=True).start()
    print("ready", flush=True)
    while True:
        query, client = packets.recvfrom(4096)
        packets.sendto(answer(query, "udp", log), client)


main()
