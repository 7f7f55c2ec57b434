"""Object stores, for the tests of the archive. Serves one bucket until its standard input is closed.

    stores.py s3 BUCKET                 S3, by moto; takes every key
    stores.py s3-refusing BUCKET        the same, but there are no accounts: refuses every key
    stores.py google BUCKET KEY_FILE    Google Cloud Storage's XML API

Prints the URL it serves on the first line of its output.

Google's XML API is that of S3 (https://cloud.google.com/storage/docs/interoperability) with another
authorization, so moto does the storing there too. What is Google's is done here: the bearer token must
be a JWT signed by the service account of KEY_FILE (https://google.aip.dev/auth/4111), else the answer is
401.
"""

import base64
import json
import logging
import os
import re
import sys
import threading
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from moto import settings
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.test import Client

# What moto takes for a signed request; as long as it asks for no account, it checks only the form.
SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
REFUSAL = b"<?xml version='1.0'?><Error><Code>AuthenticationRequired</Code></Error>"
SCOPES = {
    "https://www.googleapis.com/auth/devstorage.read_write",
    "https://www.googleapis.com/auth/devstorage.full_control",
    "https://www.googleapis.com/auth/cloud-platform",
}


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def plain(uri):
    """The same URI without needless escapes (RFC 3986, 6.2.2.2), which moto does not see through."""
    return re.sub("%(2D|2E|5F|7E)", lambda escape: chr(int(escape[1], 16)), uri, flags=re.IGNORECASE)


class Google:
    def __init__(self, store, key_file):
        with open(key_file, encoding="utf-8") as file:
            account = json.load(file)
        self.store = store
        self.email = account["client_email"]
        self.public = load_pem_private_key(account["private_key"].encode(), None).public_key()

    def is_let_in(self, authorization):
        kind, _, token = authorization.partition(" ")
        signed, _, signature = token.rpartition(".")
        try:
            self.public.verify(decoded(signature), signed.encode(), PKCS1v15(), SHA256())
            header, claims = (json.loads(decoded(part)) for part in signed.split("."))
        except (InvalidSignature, ValueError):
            return False
        return (
            kind == "Bearer"
            and header["alg"] == "RS256"
            and claims["iss"] == claims["sub"] == self.email
            and claims["scope"] in SCOPES
            and claims["iat"] - 60 <= time.time() < claims["exp"]
        )

    def __call__(self, environ, start_response):
        if not self.is_let_in(environ.get("HTTP_AUTHORIZATION", "")):
            start_response("401 Unauthorized", [("Content-Type", "application/xml")])
            return [REFUSAL]
        uris = {key: plain(environ[key]) for key in ("RAW_URI", "REQUEST_URI") if key in environ}
        return self.store(environ | uris | {"HTTP_AUTHORIZATION": SIGNED}, start_response)


def end_with_the_test():
    sys.stdin.read()
    os._exit(0)


def main(kind, bucket, key_file=None):
    store = DomainDispatcherApplication(create_backend_app)
    made = Client(store).put("/" + bucket, headers={"Authorization": SIGNED})
    assert made.status_code == 200, made.text
    if kind == "s3-refusing":
        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    if kind == "google":
        store = Google(store, key_file)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, store, threaded=True)
    threading.Thread(target=end_with_the_test, daemon=True).start()
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
