// Signs webhook bodies with the providers' own npm libraries, so that no test checks our code
// against itself. Reads one JSON request a line on standard input:
//   {"scheme": "stripe" | "github" | "standard", "secret", "body_base64",
//    "id"?, "timestamp"? (Unix seconds), "event"?}
// and writes one JSON line for each: the headers to send, or {"error"}. Sends nothing anywhere.
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { sign as signGitHub } from "@octokit/webhooks-methods";
import { Webhook } from "standardwebhooks";
import Stripe from "stripe";

const schemes = {
  stripe: ({ secret, body, timestamp }) => ({
    "stripe-signature": Stripe.webhooks.generateTestHeaderString({ payload: body, secret, timestamp }),
  }),
  github: async ({ secret, body, id, event }) => ({
    "x-github-delivery": id ?? randomUUID(),
    "x-github-event": event ?? "push",
    "x-hub-signature-256": await signGitHub(secret, body),
  }),
  standard: ({ secret, body, id = `msg_${randomUUID()}`, timestamp }) => ({
    "webhook-id": id,
    "webhook-timestamp": String(timestamp),
    "webhook-signature": new Webhook(secret).sign(id, new Date(timestamp * 1000), body),
  }),
};

async function answer(line) {
  const { scheme, body_base64, timestamp, ...rest } = JSON.parse(line);
  if (!Object.hasOwn(schemes, scheme)) throw new Error(`no scheme ${scheme} here`);
  const body = Buffer.from(body_base64, "base64").toString("utf8");
  return schemes[scheme]({ ...rest, body, timestamp: timestamp ?? Math.floor(Date.now() / 1000) });
}

for await (const line of createInterface({ input: process.stdin })) {
  const headers = await answer(line).catch((error) => ({ error: String(error) }));
  process.stdout.write(`${JSON.stringify(headers)}\n`);
}
