"""Signs webhook bodies with the providers' own PyPI libraries, so that no test checks our code
against itself.

Reads one JSON request a line on standard input:
  {"scheme": "razorpay" | "slack" | "standard", "secret", "body_base64",
   "id"?, "timestamp"? (Unix seconds)}
and writes one JSON line for each: the headers to send, or {"error"}. Sends nothing anywhere.
"""

import base64
import datetime
import json
import sys
import time
import types
import uuid

import razorpay.utility.utility as razorpay_utility
from slack_sdk.signature import SignatureVerifier
from standardwebhooks import Webhook


def razorpay(secret: str, body: str, event_id: str, timestamp: int) -> dict[str, str]:
    """razorpay can verify but not sign, so take the digest it computes to compare with."""
    computed = []

    def compare_digest(generated: str, _given: str) -> bool:
        computed.append(generated)
        return True

    ours = types.SimpleNamespace(new=razorpay_utility.hmac.new, compare_digest=compare_digest)
    theirs, razorpay_utility.hmac = razorpay_utility.hmac, ours
    try:
        razorpay_utility.Utility().verify_webhook_signature(body, "", secret)
    finally:
        razorpay_utility.hmac = theirs
    (signature,) = computed
    # What was taken must pass the library as it ships.
    razorpay_utility.Utility().verify_webhook_signature(body, signature, secret)
    return {"x-razorpay-event-id": event_id, "x-razorpay-signature": signature}


def slack(secret: str, body: str, event_id: str, timestamp: int) -> dict[str, str]:
    del event_id  # Slack's is in the body.
    signature = SignatureVerifier(secret).generate_signature(timestamp=str(timestamp), body=body)
    return {"x-slack-request-timestamp": str(timestamp), "x-slack-signature": signature}


def standard(secret: str, body: str, event_id: str, timestamp: int) -> dict[str, str]:
    when = datetime.datetime.fromtimestamp(timestamp, tz=datetime.timezone.utc)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": Webhook(secret).sign(msg_id=event_id, timestamp=when, data=body),
    }


SCHEMES = {"razorpay": razorpay, "slack": slack, "standard": standard}


def answer(line: str) -> dict[str, str]:
    request = json.loads(line)
    body = base64.b64decode(request["body_base64"], validate=True).decode()
    event_id = request.get("id") or f"msg_{uuid.uuid4()}"
    timestamp = request.get("timestamp", int(time.time()))
    return SCHEMES[request["scheme"]](request["secret"], body, event_id, timestamp)


for request_line in sys.stdin:
    try:
        headers = answer(request_line)
    except Exception as error:  # Whatever it is, the asker must get a line.
        headers = {"error": repr(error)}
    print(json.dumps(headers), flush=True)
