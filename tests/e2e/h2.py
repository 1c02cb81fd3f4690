# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 by hand, for tests that break its rules: frames as they are asked for, on the UNIX socket or over TLS."""
import socket, ssl, struct

import lib, wire

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(**pairs):
    number = {"header_table": 1, "push": 2, "streams": 3, "window": 4, "frame": 5, "header_list": 6}
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", number[k], v) for k, v in pairs.items()))


def message(raw, length=None, flag=0):
    return bytes([flag]) + struct.pack(">I", len(raw) if length is None else length) + raw


class Peer:
    """A connection that sends what it is told to. server: lib.Server; secure: over TLS instead of the UNIX socket."""

    def __init__(self, server, secure=False, identity=None, begin=True, timeout=10, **own_settings):
        if secure:
            self.sock = socket.create_connection(("127.0.0.1", server.port), timeout)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            if identity:
                context.load_cert_chain(*identity)
            self.sock = context.wrap_socket(self.sock)
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout)
            self.sock.connect(server.sock)
        self.secure, self.hpack, self.pending = secure, wire.HpackReader(), b""
        self.window, self.windows, self.initial = 65535, {}, 65535
        self.headers, self.bodies, self.ended, self.reset, self.goaway = {}, {}, set(), {}, None
        if begin:
            self.send(PREFACE + settings(**own_settings))

    def send(self, raw):
        self.sock.sendall(raw)

    def fields(self, path, **more):
        pairs = [(":method", "POST"), (":scheme", "https" if self.secure else "http"), (":path", path), (":authority", "localhost"),
                 ("content-type", "application/grpc"), ("te", "trailers")]
        return wire.hpack_write([(k, more.pop(k.replace(":", ""), v)) for k, v in pairs] + [(k.replace("_", "-"), v) for k, v in more.items()])

    def open(self, stream, call, end=False, **more):
        """The headers of a call, a name of the schema or a path."""
        path = "/" + wire.METHODS[call][0] if call in wire.METHODS else call
        self.send(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, self.fields(path, **more)))

    def send_message(self, stream, raw, end=True):
        """A message, as the windows of the server allow."""
        while raw or end:
            room = min(self.window, self.windows.get(stream, self.initial), 16384, len(raw))
            if raw and room <= 0:
                self.read()
                if stream in self.ended or stream in self.reset:
                    return
                continue
            part, raw = raw[:room], raw[room:]
            self.send(frame(DATA, END_STREAM if end and not raw else 0, stream, part))
            self.window -= len(part)
            self.windows[stream] = self.windows.get(stream, self.initial) - len(part)
            if not raw:
                return

    def read(self):
        """One frame, taken note of. -> (kind, flags, stream, payload)"""
        while len(self.pending) < 9 or len(self.pending) < 9 + int.from_bytes(self.pending[:3], "big"):
            part = self.sock.recv(65536)
            if not part:
                raise ConnectionError("closed by the server")
            self.pending += part
        size = int.from_bytes(self.pending[:3], "big")
        kind, flags, stream = self.pending[3], self.pending[4], struct.unpack(">I", self.pending[5:9])[0] & 0x7FFFFFFF
        payload, self.pending = self.pending[9:9 + size], self.pending[9 + size:]
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, size, 6):
                number, value = struct.unpack(">HI", payload[at:at + 6])
                if number == 4:
                    for s in self.windows:
                        self.windows[s] += value - self.initial
                    self.initial = value
            self.send(frame(SETTINGS, ACK))
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == WINDOW:
            grow = struct.unpack(">I", payload)[0]
            if stream:
                self.windows[stream] = self.windows.get(stream, self.initial) + grow
            else:
                self.window += grow
        elif kind == HEADERS:
            self.headers.setdefault(stream, {}).update(self.hpack.read(payload))
        elif kind == DATA:
            self.bodies[stream] = self.bodies.get(stream, b"") + payload
        elif kind == RST:
            self.reset[stream] = struct.unpack(">I", payload)[0]
        elif kind == GOAWAY:
            self.goaway = struct.unpack(">I", payload[4:8])[0]
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.ended.add(stream)
        return kind, flags, stream, payload

    def status(self, stream):
        """Reads on until the stream has ended -> (gRPC status, its message), or ("reset", code)."""
        while stream not in self.ended and stream not in self.reset:
            self.read()
        if stream in self.headers and "grpc-status" in self.headers[stream]:
            return int(self.headers[stream]["grpc-status"]), self.headers[stream].get("grpc-message", "")
        return ("reset", self.reset[stream]) if stream in self.reset else ("http", self.headers[stream].get(":status"))

    def drain(self, seconds):
        """Reads until the server closes -> True, or the time is over -> False."""
        self.sock.settimeout(seconds)
        try:
            while self.sock.recv(65536):
                pass
            return True
        except (socket.timeout, TimeoutError):
            return False
        except OSError:
            return True

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
