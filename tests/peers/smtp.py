"""A mail server, for the tests of mail. Serves until its standard input is closed.

    smtp.py                             takes mail in clear
    smtp.py CERT KEY USER PASSWORD      takes mail after STARTTLS and a log-in only

Prints its port on the first line of its output, then one line of JSON for each mail it took. It knows no
mailbox whose name begins with "nobody" (550), and is busy for the first mail to one that begins with "busy"
(451).
"""

import asyncio
import email
import email.policy
import json
import ssl
import sys
import threading

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


class Mailboxes:
    def __init__(self):
        self.busy = set()

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody"):
            return "550 5.1.1 no such mailbox"
        if address.startswith("busy") and address not in self.busy:
            self.busy.add(address)
            return "451 4.3.0 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        part = lambda kind: mail.get_body((kind,)).get_content()
        taken = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "subject": mail["subject"],
            "id": mail["message-id"],
            "auto": mail["auto-submitted"],
            "text": part("plain"),
            "html": part("html"),
            "tls": session.ssl is not None,
        }
        print(json.dumps(taken), flush=True)
        return "250 OK"


def options(arguments):
    if not arguments:
        return {}
    certificate, key, user, password = arguments
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def known(server, session, envelope, mechanism, data):
        wanted = LoginPassword(user.encode(), password.encode())
        return AuthResult(success=data == wanted)

    return {
        "tls_context": context,
        "require_starttls": True,
        "auth_required": True,
        "authenticator": known,
    }


async def serve(arguments):
    loop = asyncio.get_running_loop()
    mailboxes, chosen = Mailboxes(), options(arguments)
    server = await loop.create_server(lambda: SMTP(mailboxes, hostname="localhost", **chosen), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()

    def wait_for_end():
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait_for_end, daemon=True).start()
    await ended.wait()
    server.close()


asyncio.run(serve(sys.argv[1:]))
