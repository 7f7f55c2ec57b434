// Signs tokens with jose, so that no test checks our verification against our own signing. Reads one JSON request
// a line on standard input and writes one JSON line for each:
//   {"do": "keys"}                      the public keys of this run, as a JSON Web Key Set
//   {"do": "sign", "alg", "claims"}     {"token"}
import { createInterface } from "node:readline";
import { SignJWT, exportJWK, generateKeyPair } from "jose";

const pairs = {};
for (const alg of ["RS256", "PS256", "ES256", "ES384", "EdDSA"]) {
  pairs[alg] = await generateKeyPair(alg);
}

const acts = {
  async keys() {
    const keys = Object.entries(pairs).map(async ([alg, { publicKey }]) => ({
      ...(await exportJWK(publicKey)),
      alg,
      kid: alg,
      use: "sig",
    }));
    return { keys: await Promise.all(keys) };
  },
  async sign({ alg, claims }) {
    const token = new SignJWT(claims).setProtectedHeader({ alg, kid: alg });
    return { token: await token.sign(pairs[alg].privateKey) };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  const answer = await acts[request.do](request).catch((error) => ({ error: String(error) }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
