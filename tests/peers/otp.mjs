// An authenticator made of otplib, so that no test checks our codes against ourselves. Reads one JSON
// request a line on standard input:
//   {"uri": "otpauth://…", "time" (Unix seconds)}
// and writes one JSON line for each: {"code", "issuer", "label"}, or {"error"}.
import { createInterface } from "node:readline";
import { parse } from "@otplib/uri";
import { generate } from "otplib";

async function answer(line) {
  const { uri, time } = JSON.parse(line);
  const { type, label, params } = parse(uri);
  const { secret, issuer, algorithm, digits, period } = params;
  const code = await generate({ strategy: type, secret, algorithm, digits, period, epoch: time });
  return { code, issuer, label };
}

for await (const line of createInterface({ input: process.stdin })) {
  const reply = await answer(line).catch((error) => ({ error: String(error) }));
  process.stdout.write(`${JSON.stringify(reply)}\n`);
}
