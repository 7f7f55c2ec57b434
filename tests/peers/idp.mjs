// An OpenID provider on a free port of this machine, made of oidc-provider. Reads one JSON line on standard input:
//   {"redirect_uri", "client_id", "client_secret"}
// writes {"issuer"}, and serves until its input ends. Whoever signs in says who they are: the one field of its
// page is the subject. "deny" declines; subjects that begin with "unverified" have an address nobody looked at.
import { once } from "node:events";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import Provider from "oidc-provider";

const lines = createInterface({ input: process.stdin });
const [line] = await once(lines, "line");
const { redirect_uri, client_id, client_secret } = JSON.parse(line);

const server = createServer();
await once(server.listen(0, "127.0.0.1"), "listening");
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: [{ client_id, client_secret, redirect_uris: [redirect_uri] }],
  claims: { openid: ["sub"], email: ["email", "email_verified"] },
  cookies: { keys: ["a key of tests"] },
  features: { devInteractions: { enabled: false } },
  pkce: { required: () => true },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  async findAccount(_, id) {
    const email_verified = !id.startsWith("unverified");
    return { accountId: id, claims: async () => ({ sub: id, email: `${id}@idp.example`, email_verified }) };
  },
  async loadExistingGrant(ctx) {
    const { client, session } = ctx.oidc;
    const grant = new ctx.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope("openid email");
    await grant.save();
    return grant;
  },
});

async function interact(request, response) {
  if (request.method === "GET") {
    response.setHeader("content-type", "text/html; charset=utf-8");
    response.end(
      `<!doctype html><title>Sign in</title><form method="post"><input name="login" autofocus><button>Go</button></form>`,
    );
    return;
  }
  let body = "";
  for await (const chunk of request) body += chunk;
  const login = new URLSearchParams(body).get("login");
  const result =
    login === "deny"
      ? { error: "access_denied", error_description: "no, thank you" }
      : { login: { accountId: login } };
  await provider.interactionFinished(request, response, result);
}

const serve = provider.callback();
server.on("request", (request, response) => {
  if (!request.url.startsWith("/interaction/")) return serve(request, response);
  interact(request, response).catch((error) => {
    response.statusCode = 500;
    response.end(String(error));
  });
});
process.stdout.write(`${JSON.stringify({ issuer })}\n`);
lines.on("close", () => process.exit(0));
