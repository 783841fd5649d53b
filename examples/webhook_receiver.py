"""Receive alerts by webhook: believe only what is signed and fresh, and take each message once.

    WEBHOOK_SECRET=$(cat webhook.secret) python examples/webhook_receiver.py --port 8080

Nothing of perpwatch is needed on this side.
"""

import argparse
import hashlib
import hmac
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

SECRET = os.environ.get("WEBHOOK_SECRET", "only-for-trying-it-out").encode()
MAX_AGE_S = 300  # an older request may have been recorded and sent again
seen: set[str] = set()  # keep it in a database to know them after a restart


def is_genuine(header: str, body: bytes, now_s: float) -> bool:
    """``header`` is Perpwatch-Signature: ``t=1760000000,v1=5d41...``; compare bytes before the JSON is read."""
    parts = dict(part.partition("=")[::2] for part in header.split(","))
    expected = hmac.new(SECRET, parts.get("t", "").encode() + b"." + body, hashlib.sha256).hexdigest()
    # As bytes: of text it compares ASCII alone, and a forger may send any.
    is_ours = hmac.compare_digest(parts.get("v1", "").encode(), expected.encode())
    return is_ours and abs(now_s - int(parts["t"])) <= MAX_AGE_S


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not is_genuine(self.headers.get("Perpwatch-Signature", ""), body, time.time()):
            self.send_error(401)
            return
        message = json.loads(body)
        if message["id"] not in seen:
            seen.add(message["id"])
            print(message["title"], *message["lines"], sep="\n  ", flush=True)
        self.send_response(204)  # any 2xx is an acknowledgement; 5xx, 429 and silence are tried again
        self.end_headers()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--duration", type=float, default=threading.TIMEOUT_MAX, help="seconds")
    options = parser.parse_args()
    with HTTPServer(("127.0.0.1", options.port), Receiver) as server:
        print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
        threading.Timer(options.duration, server.shutdown).start()
        server.serve_forever()
