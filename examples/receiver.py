"""A receiver of pushed jobs: it checks the signature of each, and answers with the square of its number.

    SECRET=whsec_… python3 examples/receiver.py 8000
"""

import base64
import hashlib
import hmac
import http.server
import json
import os
import sys
import time

# Requests that are older are refused: somebody may have recorded them.
TOLERANCE = 5 * 60


def is_signed(headers, body, secret):
    """Whether a request is signed with the secret, as Standard Webhooks says."""
    id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    expected = b"v1," + base64.b64encode(digest)
    given = headers.get("webhook-signature", "").encode().split(b" ")
    return any([hmac.compare_digest(expected, one) for one in given])


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if not is_signed(self.headers, body, os.environ["SECRET"]):
            return self.answer(401, {"error": "wrong signature"})
        job = json.loads(body)
        if not isinstance(job, int):
            # 4xx: the job has failed. After a 5xx it would be posted again.
            return self.answer(422, {"error": "not a whole number"})
        self.answer(200, job * job)

    def answer(self, status, value):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
    print(f"receives on port {server.server_port}", flush=True)
    server.serve_forever()
